"""Which tinyseg goes on which JetPack; read by jetson-containers, which puts ``package`` here first."""

from jetson_containers import L4T_VERSION

# Jetson Linux 36 is JetPack 6: Python 3.10, for which these are the last releases. 38 and 39 are JetPack 7: Python 3.12.
CONSTRAINTS = {36: "onnxruntime==1.23.2 numpy==2.2.6"}


def tinyseg(jetpack, l4t, requires):
    entry = package.copy()  # the header of the Dockerfile
    entry["name"] = f"tinyseg:jp{jetpack}"
    entry["requires"] = requires
    entry["build_args"] = {"TINYSEG_CONSTRAINTS": CONSTRAINTS.get(l4t, "")}
    if L4T_VERSION.major == l4t or (jetpack == 7 and L4T_VERSION.major > l4t):
        entry["alias"] = "tinyseg"
    return entry


package = [
    tinyseg(6, 36, requires="==36.*"),
    tinyseg(7, 38, requires=">=38"),
]

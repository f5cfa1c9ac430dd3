"""Draw how the parts of tinyseg import each other, from the imports themselves, and check that no arrow points upwards.

python scripts/modules.py          prints the drawing (Mermaid)
python scripts/modules.py --write  puts it into docs/design.md, between its marks
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
DESIGN = ROOT / "docs" / "design.md"
BEGIN, END = "<!-- modules: made by scripts/modules.py -->", "<!-- end of modules -->"
# From the ground up: a part imports itself and what stands before it. A folder is a part; files of tinyseg/ are named.
LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "ground",
        ("arguments", "core", "dataset", "errors", "fetch", "files", "geometry", "image_headers", "images", "npz",
         "pixels", "rle", "shard_rows", "version"),
    ),
    ("system", ("system",)),
    ("sources", ("sources",)),
    ("engines", ("engines",)),
    ("prompts", ("prompts",)),
    ("draw", ("draw",)),
    ("masks", ("masks", "regions")),
    ("graphs", ("graphs",)),
    ("predict", ("predict", "track")),  # one layer: a segmenter makes trackers, a tracker runs a segmenter's network
    ("detect", ("detect",)),
    ("sinks", ("sinks",)),
    ("cutout", ("cutout",)),
    ("loop", ("loop",)),
    ("label", ("label",)),
    ("serve", ("serve",)),
    ("web", ("web",)),
    ("diagnosis", ("diagnosis",)),
    ("bench", ("bench",)),
    ("distill", ("distill",)),
    ("commands", ("commands", "cli", "__main__")),
)  # fmt: skip
FOLDERS = ("tinyseg", "engines", "distill", "bench", "web")  # all but the first are reached through links in the first
RANK = {name: rank for rank, (_, names) in enumerate(LAYERS) for name in names}


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the package by its import name, links followed once."""
    found: dict[str, Path] = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if any((root / Path(*parts[:i])).is_symlink() for i in range(1, len(parts))):
                continue
            name = ".".join(parts if folder == "tinyseg" else ("tinyseg", *parts))
            found[name.removesuffix(".__init__")] = path
    return found


def _imports(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """Modules of the package that a file imports, also inside functions; what is for type checkers alone is left out."""
    skipped: set[ast.AST] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped.update(child for part in node.body for child in ast.walk(part))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known or node.module in known:
                    yield inner if inner in known else node.module


def import_graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Module -> modules that it imports."""
    known = modules(root)
    return {name: set(_imports(path, known)) - {name} for name, path in known.items()}


def part_of(module: str) -> str:
    """The part that a module belongs to: its folder, or its own name in tinyseg/."""
    _, _, rest = module.partition(".")
    return rest.partition(".")[0]


def problems(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules without a place, arrows that point upwards, and circles."""
    found = []
    for module, imported in sorted(graph.items()):
        if module == "tinyseg":
            continue  # re-exports
        if part_of(module) not in RANK:
            found.append(f"{module} belongs to no part of LAYERS")
            continue
        above = (m for m in sorted(imported - {"tinyseg"}) if RANK.get(part_of(m), -1) > RANK[part_of(module)])
        found.extend(f"{module} imports {other}, which stands above it" for other in above)
    return found + [f"a circle: {' -> '.join(circle)}" for circle in circles(graph)]


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """One circle of imports for every module that lies on one and was not told yet."""
    told: set[str] = set()
    found = []
    for start in sorted(graph):
        if start == "tinyseg" or start in told:
            continue
        came_from: dict[str, str] = {}
        queue = [start]
        while queue and start not in came_from:
            module = queue.pop(0)
            for other in sorted(graph[module] - {"tinyseg"}):
                if other not in came_from:
                    came_from[other] = module
                    queue.append(other)
        if start in came_from:
            circle = [start]
            while came_from[circle[-1]] != start:
                circle.append(came_from[circle[-1]])
            told.update(circle)
            found.append([start, *reversed(circle)])
    return found


def drawing(graph: Mapping[str, set[str]]) -> str:
    """The parts and their arrows as Mermaid. Arrows that follow from others are left out."""
    names = {name: layer for layer, members in LAYERS for name in members}
    arrows: dict[str, set[str]] = {layer: set() for layer, _ in LAYERS}
    for module, imported in graph.items():
        for other in imported:
            a, b = names.get(part_of(module)), names.get(part_of(other))
            if a and b and a != b:
                arrows[a].add(b)
    reach: dict[str, set[str]] = {}
    for layer, _ in LAYERS:  # from the ground up, so what is below is known
        reach[layer] = arrows[layer].union(*(reach[below] for below in arrows[layer])) if arrows[layer] else set()
    lines = ["```mermaid", "graph TD"]
    for layer, _ in reversed(LAYERS):
        direct = arrows[layer] - set().union(*(reach[below] for below in arrows[layer]))
        lines += [f"  {layer} --> {below}" for below, _ in reversed(LAYERS) if below in direct]
    return "\n".join([*lines, "```"])


def main() -> int:
    graph = import_graph()
    wrong = problems(graph)
    for line in wrong:
        print(line, file=sys.stderr)
    picture = drawing(graph)
    if "--write" in sys.argv[1:]:
        before, _, rest = DESIGN.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        DESIGN.write_text(f"{before}{BEGIN}\n{picture}\n{END}{after}")
    else:
        print(picture)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

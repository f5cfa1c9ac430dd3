"""A page that segments in the reader's own browser: its parts, and how a site is made of them (docs/web.md).

``src`` is the runtime in JavaScript around the core in WebAssembly (``core.wasm``, made of ``native/`` by ``scripts/web_core.py``),
``page`` the page. Both are an npm package with a lock file (``package.json``).
"""

from tinyseg.web.site import Site, build_site

__all__ = ["Site", "build_site"]

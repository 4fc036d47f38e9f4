"""What users and notebooks bring does not act in the site: a plug-in of MkDocs that sanitises their pages."""

import base64
import hashlib
import posixpath
import re
from pathlib import Path

from bs4 import BeautifulSoup
from mkdocs.plugins import BasePlugin

from tal_lib.reports import webpage
from tal_lib.reports.site.pages import plain
from tal_lib.reports.site.sources import Sources

PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,([A-Za-z0-9+/=\s]+)$")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//|#", re.I)


class Safety(BasePlugin):
    """Sanitises pages, takes pictures out of notebooks, and turns links to absent files into text."""

    def __init__(self, sources: Sources):
        super().__init__()
        self.sources = sources

    def on_page_content(self, content, *, page, config, files):
        """The page's HTML, before the theme is put around it."""
        name = page.file.src_uri
        if name in self.sources.trusted:
            return self._linked(BeautifulSoup(content, "html.parser"), name, page.file.dest_uri, files)
        if name.endswith(".ipynb"):
            soup = webpage.folded(BeautifulSoup(content, "html.parser"))
            self._pictures(soup, page.file.dest_uri, Path(config.site_dir))
        else:
            soup = BeautifulSoup(content, "html.parser")
        soup = webpage.sanitised(str(soup))
        _safe_contents(page.toc)
        for table in soup.select("table"):
            if "tal-wide" not in (table.parent.get("class") or ()):
                table["class"] = [*(table.get("class") or ()), "tal-table"]
                table.wrap(soup.new_tag("div", attrs={"class": "tal-wide"}))
        for code in soup.select("details, pre, table"):  # the search lists texts and headings
            code["data-search-exclude"] = ""
        return self._linked(soup, name, page.file.dest_uri, files)

    def _pictures(self, soup, address, site):
        """Write the pictures of a notebook to files; equal pictures share a file."""
        for image in soup.select("img[src^='data:image/']"):
            match = PICTURE.match(image["src"])
            if not match:
                continue  # another kind of picture: removed like all foreign pictures
            raw = base64.b64decode(match[2])
            name = f"pictures/{hashlib.sha256(raw).hexdigest()[:16]}.{match[1]}"
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_bytes(raw)
            image["src"] = posixpath.relpath(name, posixpath.dirname(address) or ".")
            image["loading"], image["alt"] = "lazy", image.get("alt") or "figure"

    def _linked(self, soup, source, address, files):
        """The page with valid links; what the site lacks is shown as text."""
        here = posixpath.dirname(address)
        served = {file.dest_uri for file in files}
        for link in soup.select("a[href]"):
            target, _, anchor = link["href"].partition("#")
            if ELSEWHERE.match(link["href"]) or posixpath.normpath(posixpath.join(here, target)) in served:
                continue
            path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
            known = self.sources.addresses.get(path)
            if known:
                link["href"] = posixpath.relpath(known, here or ".")
            else:
                link.unwrap()
        return str(soup)


def _safe_contents(items):
    """Headings of a page in its list of contents: the theme shows them unescaped."""
    for item in items:
        item.title = plain(item.title.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
        _safe_contents(item.children)

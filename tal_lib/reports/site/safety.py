"""What users and notebooks bring does not act in the site: a plug-in of MkDocs that sanitises their pages."""

import base64
import hashlib
import json
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote

from bs4 import BeautifulSoup
from mkdocs.plugins import BasePlugin

from tal_lib.reports import webpage
from tal_lib.reports.figures import described
from tal_lib.reports.site.pages import plain
from tal_lib.reports.site.sources import Sources

PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,([A-Za-z0-9+/=\s]+)$")
BUTTONS = (
    "jp-InputPrompt jp-OutputPrompt jp-Collapser celltoolbar zeroclipboard-container clipboard-copy-txt"
).split()
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//|#", re.I)
INSIDE = re.compile(r"</?(?:code|sub|sup|ul|ol)\b[^>]*>")  # paragraphs stay: the results show whole ones


class Safety(BasePlugin):
    """Sanitises pages, takes pictures out of notebooks, and turns links to absent files into text."""

    def __init__(self, sources: Sources):
        super().__init__()
        self.sources = sources
        self.indexed: set[str] = set()  # texts that the search finds on an earlier page

    def on_page_content(self, content, *, page, config, files):
        """Return the page's HTML, before the theme is put around it."""
        name, address = page.file.src_uri, page.file.dest_uri
        soup = BeautifulSoup(content, "html.parser")
        if name not in self.sources.trusted:
            soup = self._sanitised(soup, name, address, Path(config.site_dir))
            _make_safe(page.toc)
            if name.endswith(".ipynb"):
                _match_headings(page.toc.items, soup.find_all(["h1", "h2", "h3", "h4", "h5", "h6"]))
        self._lighten_search(soup)
        self._link(soup, name, address, files)
        _remove_absent_pictures(soup, address, files, Path(config.site_dir))
        return str(soup)

    def on_post_build(self, *, config):
        """Take markup that only costs bytes out of the index of the search: every page loads the index."""
        path = Path(config.site_dir) / "search/search_index.json"
        index = json.loads(path.read_text(encoding="utf-8"))
        for entry in index["docs"]:
            entry["text"] = " ".join(INSIDE.sub("", entry["text"]).split())
        path.write_text(json.dumps(index, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")

    def _lighten_search(self, soup):
        """The search finds texts, and each text once: the notebooks of many pages are the same."""
        for element in soup.find_all(["pre", "table"]):
            element["data-search-exclude"] = ""
        for element in soup.find_all("p"):  # no list: the search's parser cannot skip one inside another
            if element.find_parent(["pre", "table"]):
                continue
            if (text := element.get_text()) in self.indexed:
                element["data-search-exclude"] = ""
            self.indexed.add(text)

    def _sanitised(self, soup, name, address, site):
        if name.endswith(".ipynb"):
            soup = webpage.folded(soup)
            _simplify(soup)
            _take_out_pictures(soup, address, site)
        soup = webpage.sanitised(soup)
        for table in soup.find_all("table"):
            table["class"] = [*(table.get("class") or ()), "tal-table"]
            table.wrap(soup.new_tag("div", attrs={"class": "tal-wide"}))
        return soup

    def _link(self, soup, source, address, files):
        """Point links to files of the repository to their pages; what the site lacks is shown as text."""
        here = posixpath.dirname(address)
        served = {file.dest_uri for file in files}
        pages = {file.src_uri: file.dest_uri for file in files} | self.sources.addresses
        for link in soup.find_all("a", href=True):
            target, mark, anchor = link["href"].partition("#")
            if ELSEWHERE.match(link["href"]) or posixpath.normpath(posixpath.join(here, target)) in served:
                continue
            known = pages.get(posixpath.normpath(posixpath.join(posixpath.dirname(source), target)))
            if known:
                link["href"] = posixpath.relpath(known, here or ".") + ("" if "#" in known else mark + anchor)
            else:
                link.unwrap()


def _remove_absent_pictures(soup, address, files, site):
    served = {file.dest_uri for file in files}
    for image in soup.find_all("img", src=True):
        name = posixpath.normpath(posixpath.join(posixpath.dirname(address), unquote(image["src"])))
        if name not in served and not (site / name).is_file():
            image.decompose()


def _take_out_pictures(soup, address, site):
    """Write the pictures of a notebook to files; equal pictures share a file."""
    for image in soup.find_all("img", src=re.compile("^data:image/")):
        match = PICTURE.match(image["src"])
        if not match:
            continue  # another kind of picture: removed like all foreign pictures
        raw = base64.b64decode(match[2])
        name = f"pictures/{hashlib.sha256(raw).hexdigest()[:16]}.{match[1]}"
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(raw)
        image["src"] = posixpath.relpath(name, posixpath.dirname(address) or ".")
        image["loading"], image["alt"] = "lazy", _description(image)


def _description(image):
    """What the function that drew a notebook's figure says of it; else the section it stands in."""
    cell = image.find_parent(class_="jp-CodeCell")
    text = described(cell.get_text()) if cell else ""
    heading = image.find_previous(["h1", "h2", "h3", "h4"])
    return text or (
        f"Figure of the section: {plain(heading.get_text().rstrip('¶'))}" if heading else "figure"
    )


def _simplify(soup):
    """Remove prompts and buttons of the cells; the code gets the colours of the theme."""
    for part in soup.find_all(class_=BUTTONS):
        part.decompose()
    for code in soup.find_all(class_="highlight-ipynb"):
        code["class"] = ["highlight"]


def _match_headings(items, headings):
    """Give headings, in order, the anchors of the contents; entries without a heading are left out."""
    letters = lambda text: re.sub(r"\W", "", text)
    for item in list(items):
        texts = [letters(heading.get_text()) for heading in headings]
        if letters(item.title) not in texts:
            items.remove(item)
            continue
        place = texts.index(letters(item.title))
        headings[place]["id"] = item.id
        del headings[: place + 1]
        _match_headings(item.children, headings)


def _make_safe(contents):
    """Make headings plain in the list of contents: the theme shows them unescaped."""
    for item in contents:
        item.title = plain(item.title.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
        _make_safe(item.children)

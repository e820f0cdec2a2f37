import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Page(HTMLParser):
    """Headings, text, and everything that a page would load."""

    def __init__(self, text):
        super().__init__()
        self.text, self.loads, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset")]

    def handle_data(self, data):
        if data.strip():
            self.text.append(" ".join(data.split()))


@pytest.fixture(scope="session")
def read_page():
    return Page


@pytest.fixture
def widths(tmp_path):
    """How wide Chromium lays a page out, and its window. (The script is for the test alone.)"""
    if CHROMIUM is None:
        pytest.skip("needs chromium (Debian's package)")

    def measure(path, width):
        probe = "<script>document.title = document.documentElement.scrollWidth + ' ' + innerWidth</script></body>"
        (tmp_path / "probe.html").write_text(path.read_text().replace("</body>", probe))
        done = subprocess.run(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},2000", "--dump-dom",
             f"file://{tmp_path}/probe.html"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        found = re.search(r"<title>(\d+) (\d+)</title>", done.stdout)
        assert found, done.stderr
        return int(found[1]), int(found[2])

    return measure

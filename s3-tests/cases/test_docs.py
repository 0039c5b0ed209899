"""The pages: every command that they show works, every link leads somewhere, every chapter is in the book."""

import html
import re

import pytest

from docs_run import BLOCK, ROOT, Page, blocks

BOOK = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(BOOK.glob("*.md")), ROOT / "examples" / "README.md"]
ALL = sorted(path for path in ROOT.rglob("*.md") if not {"node_modules", "target", ".git"} & set(path.relative_to(ROOT).parts))
# Commands that a test cannot run for a reader: each has its reason, and new ones need a good one.
MOST_NOT_RUN = 13
SETTINGS = (ROOT / "examples" / "palm.toml").read_text()
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.own_pool
@pytest.mark.parametrize("path", [page for page in PAGES if any(block.how != "no-run" for block in blocks(page))], ids=name)
def test_commands(path, tmp_path):
    """The command blocks of a page, in their order, on the machines that it speaks of. Danger: a page that tells of commands as they once were.
    Expected: each ends with code 0, or serves."""
    with Page(path, tmp_path) as page:
        page.run()
        if page.left_out:
            pytest.skip(f"all others ran; {', '.join(page.left_out)}")


def test_what_is_not_run():
    """Blocks that no test runs say why, and are few. Commands are not hidden from the tests in blocks by indentation, or without a language."""
    left_out = [block for page in PAGES for block in blocks(page) if block.how == "no-run"]
    assert all(block.reason for block in left_out)
    assert len(left_out) <= MOST_NOT_RUN
    for page in PAGES:
        rest = BLOCK.sub("", page.read_text())
        hidden = re.findall(r"^(?:    |```\n)(?:\$ )?(?:sudo )?(?:palm|aws|rclone|make|cargo|docker|export) .*", rest, re.MULTILINE)
        assert not hidden, f"{name(page)}: {hidden}"


@pytest.mark.parametrize("path", ALL, ids=name)
def test_links(path):
    """Each link to a file or a heading of the project. Expected: the file is there, and the heading in it."""
    text = FENCE.sub("", path.read_text())
    dead = [link for found in LINK.findall(text) if (link := next(filter(None, found))) and not leads_somewhere(path, link)]
    assert not dead, f"{name(path)}: {dead}"


def leads_somewhere(page, link: str) -> bool:
    if re.match(r"[a-z]+:", link):
        return True  # elsewhere; no test asks the internet
    file, _, anchor = link.partition("#")
    target = (page.parent / file).resolve() if file else page
    return target.exists() and (not anchor or anchor in anchors(target))


def anchors(page) -> set[str]:
    """Of the headings, as GitHub and mdBook make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", html.unescape(heading)) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_names(path):
    """Files of ours and settings that a page names. Danger: it sends its reader to what was renamed. Expected: each is there."""
    text = path.read_text()
    files = re.findall(r"`((?:src|s3-tests|backends|examples|monitoring|tools)/[\w./-]+)`", text)
    assert not [file for file in files if not (ROOT / file).exists()]
    tables = re.findall(r"^\[(\w+)\]\n(.*?)(?=^\[|\Z)", SETTINGS, re.MULTILINE | re.DOTALL)
    settings = {f"{table}.{key}" for table, body in tables for key in re.findall(r"^#(\w+) =", body, re.MULTILINE)}
    names = "|".join(table for table, _ in tables)
    assert not set(re.findall(rf"`((?:{names})\.(?!rs\b|py\b|yml\b)\w+)", text)) - settings


def test_book():
    """The book (`make book`). Danger: a link that works on GitHub and is dead in the book, which has the pages of its summary alone, and shows no folders.
    Expected: the summary names each page of docs, and each page that a page of the book leads to, once; no link leads to a folder."""
    named = [(BOOK / page).resolve() for page in re.findall(r"\]\(([^)]+)\)", (BOOK / "SUMMARY.md").read_text())]
    led_to = {target for page in named for target in targets(page)}
    assert not [name(target) for target in led_to if target.is_dir()], "are folders"
    pages = {page for page in [*BOOK.rglob("*.md"), *led_to] if page.suffix == ".md"} - ({BOOK / "SUMMARY.md"} - led_to)
    assert not [name(page) for page in pages - set(named)], "are not in the summary"
    assert len(named) == len(set(named))


def targets(page) -> set:
    """What of the project a page leads to."""
    links = (next(filter(None, found)) for found in LINK.findall(FENCE.sub("", page.read_text())))
    return {(page.parent / link.partition("#")[0]).resolve() for link in links if not re.match(r"[a-z]+:|#", link)}

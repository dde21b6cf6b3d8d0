"""The documentation is held against the code: what is there is documented, what is documented is there."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from tools import reference

import tallystick
from tallystick.config.settings import Settings

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)


def pages() -> list[Path]:
    """Every Markdown page in the repository, as git sees it."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split("\n") if name]


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


@cache
def part(name: str) -> str:
    return reference.PARTS[name]()


@pytest.mark.parametrize("name", sorted(reference.PARTS))
def test_generated_parts_are_up_to_date(name: str) -> None:
    """`make docs` would change nothing: every setting, verb, metric and endpoint is on its page as the code has it."""
    page = text_of(f"docs/{name}")
    assert reference.with_part(page, part(name)) == page, "run `make docs`"


def test_every_settings_class_is_documented() -> None:
    """No settings class of a plug-in is missing from the configuration page, and every setting has a description."""
    for module in pkgutil.walk_packages(tallystick.__path__, "tallystick."):
        importlib.import_module(module.name)
    documented = set(reference.settings_classes().values())

    def below(kind: type) -> Iterator[type]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    ours = {kind for kind in below(Settings) if kind.__module__.startswith("tallystick.") and ".testing." not in kind.__module__}
    assert {kind.__name__ for kind in ours - documented} == {"Config"}
    rows = [line for line in part("configuration.md").split("\n") if line.startswith("| `")]
    assert len(rows) > 50
    assert not [row for row in rows if row.endswith("|  |")]


def test_every_metric_in_the_source_is_documented() -> None:
    """A metric made in a module that the page does not know about would be found here by its name."""
    named: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        named |= set(re.findall(r"(?:Counter|Gauge|Histogram|Summary)\(\s*\"(tallystick_[a-z_]+)\"", path.read_text("utf-8")))
    assert len(named) >= 15
    page = part("metrics.md")
    assert not {name for name in named if f"`{name}`" not in page and f"`{name}_total`" not in page}


def test_metrics_named_in_prose_exist() -> None:
    """No page tells anyone to watch a metric that is not there."""
    known = set(re.findall(r"`(tallystick_[a-z_]+)`", part("metrics.md")))
    for page in pages():
        named = set(re.findall(r"`(tallystick_[a-z_]+)(?:\{[^`]*\})?`", page.read_text("utf-8")))
        assert named <= known, page


@pytest.mark.parametrize("page", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    """Every link to a page, picture or heading of this repository leads somewhere."""
    for target in LINK.findall(page.read_text("utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page}: {target}"
        if anchor and file.suffix == ".md":
            assert anchor in {slug(heading) for heading in HEADING.findall(file.read_text("utf-8"))}, f"{page}: {target}"


def test_pictures_are_there_for_both_colour_schemes() -> None:
    """Every picture of a page exists, light and dark, none is too large to load, and none lies there unused."""
    used: set[Path] = set()
    for page in pages():
        found = {(page.parent / name).resolve() for name in re.findall(r'(?:src|srcset)="([^"]+)"', page.read_text("utf-8"))}
        assert {str(path).replace("-light.", "-dark.") for path in found} == {str(path) for path in found if "-dark." in path.name}
        used |= found
    assert used == set((ROOT / "docs" / "pictures").iterdir())
    assert max(path.stat().st_size for path in used) < 200_000


def slug(heading: str) -> str:
    """A heading's anchor, as it is made for readers of Markdown on the web."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_page_can_be_reached_from_the_readme() -> None:
    """No page of the documentation is an orphan."""
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in LINK.findall(page.read_text("utf-8")):
            file = (page.parent / target.partition("#")[0]).resolve()
            if "://" not in target and file.suffix == ".md":
                waiting.append(file)
    docs = {page for page in pages() if page.is_relative_to(ROOT / "docs")}
    assert {str(page.relative_to(ROOT)) for page in docs - seen} == set()


def test_verbs_in_the_pages_exist() -> None:
    """Every `tallystick VERB` in a shell block is a verb of the command line, with options that it has."""
    known = dict(reference.verbs())
    for page in pages():
        for block in re.findall(r"```(?:sh|bash|console)?\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            for command in re.findall(r"(?:^|\| |\$ )tallystick +([^|\n]*)", block, re.MULTILINE):
                words = command.split()
                name = next((" ".join(words[:size]) for size in (2, 1) if " ".join(words[:size]) in known), None)
                assert name is not None or words[0].startswith("-"), f"{page}: tallystick {command}"
                if name is not None:
                    options = {option for param in known[name].params for option in param.opts}
                    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options | {"--help"}, command


def test_make_targets_in_the_pages_exist() -> None:
    """Every `make TARGET` on a page is in the Makefile, and `make help` lists every target."""
    targets = set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))
    for page in pages():
        named = set(re.findall(r"(?:`|^|&& )make ([a-z]+)", page.read_text("utf-8"), re.MULTILINE))
        assert named <= targets, page
    helped = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {f"  make {target}" for target in targets} == set(re.findall(r"^  make [a-z]+", helped, re.MULTILINE))


def test_the_tests_that_the_readme_names_exist() -> None:
    """The table of promises names tests; each of them is a file, and a function in it where one is named."""
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text_of("README.md"))
    assert len(named) >= 10
    for file, function in named:
        assert (ROOT / file).exists(), file
        assert not function or f"def {function}(" in text_of(file), f"{file}::{function}"


def test_every_promise_is_in_the_readme() -> None:
    """P1 to P12 each have a row."""
    rows = re.findall(r"^\| P(\d+) ", text_of("README.md"), re.MULTILINE)
    assert rows == [str(number) for number in range(1, 13)]


def test_the_hash_locks_cover_the_project() -> None:
    """Every dependency of pyproject.toml is pinned with hashes in the lock that installs it."""
    project = tomllib.loads(text_of("pyproject.toml"))
    base, extras = project["project"]["dependencies"], project["project"]["optional-dependencies"]
    for lock, wanted in (("server", [*base, *extras["server"]]), ("dev", project["dependency-groups"]["dev"])):
        pinned = set(re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==", text_of(f"requirements/{lock}.txt"), re.MULTILINE))
        assert {re.split(r"[\[>=<; ]", name)[0].lower() for name in wanted} <= pinned


@pytest.mark.parametrize(
    ("synonym", "word"),
    [
        (r"sinks?", "destination"),
        (r"dlq|dead[- ]letter queue", "dead letters"),
        (r"sth|signed tree heads?", "checkpoint"),
        (r"api tokens?|access tokens?", "key"),
        (r"events? (?:is|are|was|were) dropped", "filtered, by a named filter"),
    ],
)
def test_one_word_for_one_thing(synonym: str, word: str) -> None:
    """The pages use the glossary's word and not another product's for the same thing; its configuration stands in blocks of code."""
    others = [page for page in pages() if page.name != "glossary.md"]
    prose = {page: re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE) for page in others}
    found = [page for page, text in prose.items() if re.search(rf"\b(?:{synonym})\b", text, re.IGNORECASE)]
    assert found == [], f"write {word!r}"

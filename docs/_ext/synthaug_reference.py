"""Pages of the reference that are made while the site is built: public names, configuration keys, options, commands."""

import inspect
from pathlib import Path

import synthaug_keys as keys
import typer
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

import synthaug
from synthaug.cli.app import app as commands


class PublicNames(Directive):
    """An autodoc directive for every name of `synthaug.__all__`."""

    def run(self) -> list[nodes.Node]:
        """Parse a directive for each public name."""
        lines = []
        for name in synthaug.__all__:
            thing = getattr(synthaug, name)
            kind = "class" if inspect.isclass(thing) else "function" if inspect.isfunction(thing) else "data"
            lines += [f".. auto{kind}:: synthaug.{name}"]
            lines += (
                ["   :members:", "   :inherited-members: Module, BaseModel, Enum, int, tuple, dict"]
                if _has_members(thing)
                else []
            )
            lines += ["   :no-value:"] if kind == "data" and name != "__version__" else []
            lines += [""]
        holder = nodes.section()
        self.state.nested_parse(StringList(lines, source="synthaug"), self.content_offset, holder)
        return holder.children


def _has_members(thing: object) -> bool:
    return inspect.isclass(thing) and thing.__name__ not in ("InsertionOptions", "GliGAN", "LowInsertionRateWarning")


class Code(SphinxRole):
    """Single backticks in docstrings: code."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Make a literal of the text."""
        return [nodes.literal(text=self.text)], []


def write_pages(app: Sphinx) -> None:
    """Write the generated pages of docs/reference, only where they change."""
    folder = Path(app.srcdir) / "reference"
    _write(folder / "options.md", keys.options_page())
    _write(folder / "configuration.md", keys.configuration_page())
    _write(folder / "commands.md", commands_page())


def _write(file: Path, text: str) -> None:
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")


def commands_page() -> str:
    """Describe every command, with its arguments and options, in Markdown."""
    lines = ["# Commands", "", "`synthaug COMMAND --help` says the same.", ""]
    for name, command in keys.all_commands(typer.main.get_command(commands)):
        words = inspect.cleandoc(command.help or "")
        lines += [f"## synthaug {name}", "", words, "", "| | default | |", "|---|---|---|"]
        for parameter in command.params:
            if "--help" in parameter.opts:
                continue
            shown = (
                ", ".join(f"`{o}`" for o in parameter.opts)
                if parameter.opts[0].startswith("-")
                else f"`{parameter.name.upper()}`"
            )
            default = "" if parameter.default in (None, ()) or parameter.required else f"`{parameter.default}`"
            lines.append(f"| {shown} | {default} | {keys.cell(getattr(parameter, 'help', None) or '')} |")
        lines.append("")
    return "\n".join(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the pages, the directive and the role."""
    app.add_directive("public-names", PublicNames)
    app.add_role("any-code", Code())
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}

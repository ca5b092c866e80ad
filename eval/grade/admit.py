"""Admission: a design may define itself and its helpers, and touch nothing else; judged before it runs.

The raw text is scanned first (an `ifdef may hide things from one tool only), then the tree that slang makes.
A text with syntax errors is judged by what slang makes of it; the sandbox and the harness still hold it.
"""

import re
from collections.abc import Iterator
from typing import Any

import pyslang
from pyslang import parsing, syntax
from pyslang.parsing import TokenKind
from pyslang.syntax import SyntaxKind

from eval.grade.extract import TOP, without_comments

_HARMLESS = re.compile(
    r"(display|write|strobe|monitor|swrite)[bho]?|monitoron|monitoroff|info|warning|error|sformatf?|timeformat"
    r"|printtimescale|signed|unsigned|clog2|bits|size|high|low|left|right|increment|(unpacked_)?dimensions|typename|cast"
    r"|countones|countbits|onehot0?|isunknown|isunbounded|time|realtime|stime|u?random|urandom_range|rtoi|itor"
    r"|(short)?realtobits|bitsto(short)?real|ln|log10|exp|sqrt|pow|floor|ceil|abs|min|max|a?(sin|cos|tan)h?|atan2|hypot"
    r"|past|rose|fell|stable|changed|sampled|assert(on|off|kill)"
)
_RESERVED = frozenset({"tb", "RefModule", "stimulus_gen"})
_BARRED = {
    SyntaxKind.BindDirective: "bind",
    SyntaxKind.ProceduralForceStatement: "force",
    SyntaxKind.ProceduralReleaseStatement: "release",
    SyntaxKind.DPIImport: "a DPI import",
    SyntaxKind.DPIExport: "a DPI export",
    SyntaxKind.ConfigDeclaration: "a config",
    SyntaxKind.ProgramDeclaration: "a program",
    SyntaxKind.AnonymousProgram: "a program",
    SyntaxKind.LibraryDeclaration: "a library",
}
_DEFINITIONS = (SyntaxKind.ModuleDeclaration, SyntaxKind.InterfaceDeclaration, SyntaxKind.PackageDeclaration)
_CONNECTIONS = (SyntaxKind.NamedPortConnection, SyntaxKind.NamedParamAssignment)
_SYSTEM_NAME = re.compile(r"\$\s*(`*)(\w*)")
_DIRECTIVE = re.compile(r"`(include|line|pragma|unconnected_drive|nounconnected_drive|protect\w*|begin_keywords)\b")


def _line_of(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def _from_text(design: str) -> Iterator[str]:
    plain = without_comments(design)
    for match in _DIRECTIVE.finditer(plain):
        yield f"line {_line_of(plain, match.start())}: the directive `{match.group(1)}"
    for match in _SYSTEM_NAME.finditer(plain):
        ticks, name = match.groups()
        if ticks or (name and not _HARMLESS.fullmatch(name)):
            yield f"line {_line_of(plain, match.start())}: the system task or scope ${ticks}{name}"


def _parse(design: str) -> Any:
    options = parsing.PreprocessorOptions()
    options.predefines = ["__ICARUS__=1"]
    return syntax.SyntaxTree.fromText(
        design, pyslang.SourceManager(), "design.sv", "design.sv", pyslang.Bag([options])
    ).root


def _first_name(node: Any) -> str | None:
    """The identifier a dotted or plain name begins with; None for scopes spelled otherwise (`this`, `$unit`)."""
    while node.kind == SyntaxKind.ScopedName:
        node = node.left
    token = getattr(node, "identifier", None)
    return token.valueText if token is not None else None


class _Walk:
    """One pass over the tree: names declared, names that dots begin with, and what is barred outright."""

    def __init__(self, root: Any):
        self.declared: set[str] = set()
        self.begun: dict[str, str] = {}
        self.reasons: list[str] = []
        root.visit(self.see)

    def see(self, node: Any) -> None:
        if isinstance(node, parsing.Token):
            self.token(node)
        elif node.kind in _BARRED:
            self.reasons.append(_BARRED[node.kind])
        elif node.kind in (SyntaxKind.ScopedName, SyntaxKind.DisableStatement):
            self.dotted(node)
        else:
            self.declaration(node)

    def token(self, token: Any) -> None:
        if token.kind == TokenKind.SystemIdentifier and not _HARMLESS.fullmatch(token.valueText[1:]):
            self.reasons.append(f"the system task {token.valueText}")
        elif token.kind in (TokenKind.RootSystemName, TokenKind.UnitSystemName):
            self.reasons.append(f"the scope {token.valueText or '$unit'}")

    def dotted(self, node: Any) -> None:
        if node.kind == SyntaxKind.ScopedName and node.separator.kind != TokenKind.Dot:
            return
        name = _first_name(node.name if node.kind == SyntaxKind.DisableStatement else node)
        if name is not None:
            self.begun.setdefault(name, str(node).strip()[:80])

    def declaration(self, node: Any) -> None:
        if node.kind in _DEFINITIONS:
            name = node.header.name.valueText
            self.declared.add(name)
            if name in _RESERVED:
                self.reasons.append(f"a definition of {name}, which belongs to the testbench")
        elif node.kind == SyntaxKind.FunctionPrototype:
            self.declared.add(_first_name(node.name) or "")
        elif node.kind not in _CONNECTIONS and isinstance(getattr(node, "name", None), parsing.Token):
            self.declared.add(node.name.valueText)


def rejection(design: str) -> str | None:
    """Why the design must not be run, or None."""
    for reason in _from_text(design):
        return reason
    try:
        found = _Walk(_parse(design))
    except RuntimeError:  # slang gives up: nested too deeply, expanded too far
        return None
    for reason in found.reasons:
        return reason
    for name, text in found.begun.items():
        if name not in found.declared and name != TOP:
            return f"a reference out of the design: {text}"
    return None

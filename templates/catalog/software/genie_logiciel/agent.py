"""genie_logiciel: what a source file contains and what in it deserves a second look, as data.

Functions and classes with their places, cyclomatic complexity, nesting and docstrings, and findings with a code, a
severity and a position. Python is read as a syntax tree; C, C++, C#, Java, JavaScript, TypeScript, Go and Rust as
tokens, with the limits that docs/catalog.md states; any other language is said to be unsupported. Input is the source
itself, or a JSON object ``{"text": …, "filename": …, "language": …}``.
"""

import ast
import io
import json
import math
import re
import tokenize
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import agentfactory_sdk

SEGMENT_CHARS_MAX = 200
FINDINGS_MAX = 1_000
LIMITS_DEFAULT = {"complexity_max": 10, "nesting_max": 5, "arguments_max": 8, "function_lines_max": 100}


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# code: (severity, the code that ruff gives the same construct; a "noqa" comment that names it marks the finding)
RULES = {
    "syntax-error": ("error", ""),
    "unbalanced-brackets": ("error", ""),
    "nested-too-deeply": ("error", ""),
    "unsupported-language": ("info", ""),
    "findings-cut": ("warning", ""),
    "eval-used": ("error", "S307"),
    "exec-used": ("error", "S102"),
    "shell-command": ("error", "S602"),
    "unsafe-deserialisation": ("error", "S301"),
    "unsafe-yaml-load": ("error", "S506"),
    "unsafe-function": ("error", ""),
    "hardcoded-secret": ("error", "S105"),
    "sql-from-strings": ("error", "S608"),
    "tls-verification-off": ("error", "S501"),
    "weak-hash": ("warning", "S324"),
    "insecure-temporary-file": ("error", "S306"),
    "assert-for-security": ("warning", "S101"),
    "assert-on-tuple": ("error", "F631"),
    "mutable-default": ("warning", "B006"),
    "bare-except": ("warning", "E722"),
    "exception-ignored": ("warning", "S110"),
    "return-in-finally": ("warning", "B012"),
    "none-comparison": ("warning", "E711"),
    "bool-comparison": ("info", "E712"),
    "literal-identity": ("error", "F632"),
    "self-comparison": ("warning", "PLR0124"),
    "duplicate-key": ("warning", "F601"),
    "unreachable-code": ("warning", ""),
    "star-import": ("warning", "F403"),
    "unused-import": ("warning", "F401"),
    "unused-variable": ("warning", "F841"),
    "shadowed-builtin": ("info", "A001"),
    "redefined": ("warning", "F811"),
    "invalid-escape": ("warning", "W605"),
    "missing-docstring": ("info", "D1"),
    "too-complex": ("warning", "C901"),
    "too-many-arguments": ("info", "PLR0913"),
    "deep-nesting": ("warning", "PLR1702"),
    "long-function": ("info", ""),
}


class Findings:
    """Collects findings once each; ``noqa`` on the line marks, and does not hide, them."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.found: dict[tuple[int, int, str, str], dict[str, object]] = {}

    def add(self, code: str, line: int, column: int, message: str, symbol: str | None = None) -> None:
        severity, alias = RULES[code]
        self.found[line, column, code, symbol or ""] = {
            "code": code,
            "severity": severity,
            "line": line,
            "column": column,
            "message": message,
            "symbol": symbol,
            "suppressed": self._suppressed(line, alias),
        }

    def _suppressed(self, line: int, alias: str) -> bool:
        text = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        mark = NOQA.search(text) if "#" in text else None
        if mark is None:
            return False
        codes = (mark[1] or "").replace(",", " ").upper().split()
        return not codes or (alias != "" and any(code.startswith(alias) or alias == code for code in codes))

    def sorted(self) -> list[dict[str, object]]:
        ordered = [self.found[key] for key in sorted(self.found)]
        if len(ordered) > FINDINGS_MAX:
            more = len(ordered) - FINDINGS_MAX
            severity = RULES["findings-cut"][0]
            last = ordered[FINDINGS_MAX - 1]
            ordered = [
                *ordered[:FINDINGS_MAX],
                {
                    "code": "findings-cut",
                    "severity": severity,
                    "line": last["line"],
                    "column": 1,
                    "message": f"{more} further findings are not listed",
                    "symbol": None,
                    "suppressed": False,
                },
            ]
        return ordered


NOQA = re.compile(r"#\s*(?:noqa|nosec)(?::\s*([A-Za-z0-9, ]+))?", re.IGNORECASE)
SECRET_NAME = re.compile(
    r"(?:^|[_.\-])(?:pass(?:wd|word|phrase)?|pwd|secret|token|credentials?)(?:$|[_.\-](?!url|uri|file|path|name|field|"
    r"type|re|regex|pattern|prefix|id|key|header|len|length|max|min|count|env|param|parameter|endpoint|kind|error|"
    r"message|label))|(?:api|secret|private|access|auth|encryption|signing)[_\-]?key$|auth[_\-]?token$",
    re.IGNORECASE,
)
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
SECRET_SHAPE = re.compile(
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|"
    r"\bxox[abprs]-[A-Za-z0-9-]{10,}|\bsk_live_[A-Za-z0-9]{16,}|\bAIza[0-9A-Za-z_\-]{35}\b|"
    r"\beyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}"
)
PLACEHOLDER = re.compile(
    r"^(?:|none|null|true|false|changeme|example|password|secret|token|string|\*+|x+|\.+|<.*>|\$\{.*\}|\{.*\}|%.*|"
    r"\$.*)$",
    re.IGNORECASE,
)
SQL = re.compile(
    r"^\s*(?:select\b.+\bfrom\b|insert\s+into\b|update\b.+\bset\b|delete\s+from\b|replace\s+into\b|drop\s+table\b|"
    r"with\b.+\bselect\b)",
    re.IGNORECASE | re.DOTALL,
)
SECURITY_WORDS = re.compile(
    r"(?:^|[_.])(?:is_?)?(?:admin|auth\w*|permission\w*|permitted|allowed|privilege\w*|token|password|login|logged_in|"
    r"signature|signed|verif\w+|trusted|secure|owner|role|access|credential\w*|superuser|staff)(?:$|[_.])",
    re.IGNORECASE,
)
BUILTINS = word_set(
    "abs aiter all anext any ascii bin bool breakpoint bytearray bytes callable chr classmethod compile complex "
    "delattr dict dir divmod enumerate eval exec filter float format frozenset getattr globals hasattr hash help hex "
    "id input int isinstance issubclass iter len list locals map max memoryview min next object oct open ord pow "
    "print property range repr reversed round set setattr slice sorted staticmethod str sum super tuple type vars zip "
    "BaseException Exception ValueError TypeError KeyError IndexError RuntimeError OSError StopIteration "
    "AttributeError ImportError NameError LookupError ArithmeticError AssertionError EOFError NotImplementedError "
    "PermissionError TimeoutError ConnectionError FileNotFoundError Warning"
)
SHELLS = word_set("os.system os.popen commands.getoutput subprocess.getoutput subprocess.getstatusoutput")
SHELL_ARGUMENT = word_set(
    "subprocess.run subprocess.call subprocess.Popen subprocess.check_call subprocess.check_output"
)
LOADERS = word_set(
    "pickle.load pickle.loads pickle.Unpickler _pickle.load _pickle.loads cPickle.load cPickle.loads dill.load "
    "dill.loads marshal.load marshal.loads shelve.open jsonpickle.decode pandas.read_pickle joblib.load"
)
MUTABLE_CALLS = word_set(
    "list dict set bytearray collections.defaultdict collections.OrderedDict collections.deque collections.Counter"
)
STOPS = (ast.Return, ast.Raise, ast.Continue, ast.Break)
CONTROL = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar, ast.With, ast.AsyncWith, ast.Match)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


# --- Python: one walk over the tree -----------------------------------------------------------------------------------


class Scope:
    """A module, class or function while it is walked; ``decisions`` and ``conditions`` leave out inner ones."""

    __slots__ = (
        "assigned", "conditions", "decisions", "declared", "defined", "inner", "kind", "loaded", "name", "nesting",
        "node", "opaque", "outer", "qualified",
    )  # fmt: skip

    def __init__(self, kind: str, name: str, node: ast.AST, outer: "Scope | None") -> None:
        self.kind, self.name, self.node, self.outer = kind, name, node, outer
        prefix = ""
        if outer is not None and outer.kind != "module":
            prefix = outer.qualified + (".<locals>." if outer.kind == "function" else ".")
        self.qualified: str = prefix + name
        self.decisions = self.conditions = self.nesting = 0
        self.inner: list[Scope] = []
        self.assigned: dict[str, ast.AST] = {}
        self.loaded: set[str] = set()
        self.declared: set[str] = set()
        self.defined: dict[str, ast.AST] = {}
        self.opaque = False

    def function(self) -> "Scope | None":
        scope: Scope | None = self
        while scope is not None and scope.kind != "function":
            scope = scope.outer
        return scope

    def complexity(self) -> int:
        """McCabe 1976 over statements, inner functions included, as the tools ``mccabe`` and ruff (C901) count."""
        own = self.decisions + (1 if self.kind == "function" else 0)
        return own + sum(scope.complexity() for scope in self.inner)


class PythonFile:
    """Everything that one walk over a syntax tree finds."""

    def __init__(
        self, text: str, tree: ast.Module, findings: Findings, settings: dict[str, int], filename: str
    ) -> None:
        self.lines = text.split("\n")
        self.findings = findings
        self.settings = settings
        self.is_test = re.search(r"(?:^|/)(?:test_[^/]*|[^/]*_test|conftest)\.py$", filename) is not None
        self.is_private = re.search(r"(?:^|/)_[^_/][^/]*\.py$", filename) is not None
        self.reexports = filename.endswith("__init__.py")
        self.module = Scope("module", "", tree, None)
        self.scopes: list[Scope] = []
        self.aliases: dict[str, str] = {}
        self.modules: set[str] = set()
        self.imports: list[tuple[str, str, ast.alias]] = []
        self.used: set[str] = set()
        self.rebound: set[str] = set()
        self.operators: list[str] = []
        self.operands: list[str] = []
        self._walk(tree)
        self._after(tree)

    # Places are 1-based lines and columns in characters, as editors show them.

    def at(self, node: ast.AST) -> tuple[int, int]:
        line, offset = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        before = self.lines[line - 1].encode("utf-8")[:offset] if offset and line <= len(self.lines) else b""
        return line, len(before.decode("utf-8", "replace")) + 1

    def report(self, code: str, node: ast.AST, message: str, symbol: str | None = None) -> None:
        line, column = self.at(node)
        self.findings.add(code, line, column, message, symbol)

    def segment(self, node: ast.AST | None) -> str | None:
        """The node's source on one line, cut where it is long."""
        if node is None:
            return None
        first, last = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0)
        if not 0 < first <= last <= len(self.lines):
            return None
        rows = [row.encode("utf-8") for row in self.lines[first - 1 : last]]
        rows[-1] = rows[-1][: getattr(node, "end_col_offset", 0)]
        rows[0] = rows[0][getattr(node, "col_offset", 0) :]
        text = " ".join(b" ".join(rows).decode("utf-8", "replace").split())
        return text if len(text) <= SEGMENT_CHARS_MAX else text[: SEGMENT_CHARS_MAX - 1] + "…"

    # The walk keeps its own stack: a deep tree must not exhaust the interpreter's.

    def _walk(self, tree: ast.Module) -> None:
        stack: list[tuple[ast.AST, Scope, int, frozenset[str]]] = [(tree, self.module, 0, frozenset())]
        while stack:
            node, scope, depth, marks = stack.pop()
            inner, inner_depth, inner_marks = self._enter(node, scope, depth, marks)
            children: list[tuple[ast.AST, Scope, int, frozenset[str]]] = []
            for name, value in ast.iter_fields(node):
                place = (
                    inner
                    if name in {"body", "args", "returns"} or not isinstance(node, (*FUNCTIONS, ast.ClassDef))
                    else scope
                )
                level = inner_depth
                if isinstance(node, ast.If) and name == "orelse" and len(node.orelse) == 1:
                    level = depth if isinstance(node.orelse[0], ast.If) else inner_depth  # elif is as deep as its if
                told = inner_marks | {"text"} if name in {"annotation", "returns", "slice"} else inner_marks
                inside = value if isinstance(value, list) else [value]
                children.extend((child, place, level, told) for child in inside if isinstance(child, ast.AST))
            stack.extend(reversed(children))

    def _enter(
        self, node: ast.AST, scope: Scope, depth: int, marks: frozenset[str]
    ) -> tuple[Scope, int, frozenset[str]]:
        """Record one node; return scope, depth and marks of its children."""
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            self._bind(node.name, node, scope)
            self._redefinition(node, scope, depth)
            inner = Scope("class" if isinstance(node, ast.ClassDef) else "function", node.name, node, scope)
            (scope.function() or scope).inner.append(inner)
            self.scopes.append(inner)
            check_blocks(self, node)
            return inner, 0, marks
        if isinstance(node, CONTROL):
            depth += 1
            function = scope.function()
            if function:
                function.nesting = max(function.nesting, depth)
        self._count(node, scope)
        self._names(node, scope, marks)
        check = CHECKS.get(type(node))
        if check is not None:
            check(self, node)
        if isinstance(node, (ast.Try, ast.TryStar)) and any(map(catches_import, node.handlers)):
            marks |= {"optional"}
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)) and exports(node):
            marks |= {"text"}
        if isinstance(node, ast.Call) and (self.dotted(node.func) or "").rpartition(".")[2] in {
            "cast",
            "TypeVar",
            "NewType",
        }:
            marks |= {"text"}
        return scope, depth, marks

    def _count(self, node: ast.AST, scope: Scope) -> None:
        """Decisions (statements) as mccabe counts, conditions as lizard does; operators and operands for Halstead."""
        scope = scope.function() or self.module
        match node:
            case ast.If() | ast.For() | ast.AsyncFor() | ast.While():
                scope.decisions += 1
                scope.conditions += 1
            case ast.Try() | ast.TryStar():
                scope.decisions += len(node.handlers) + bool(node.orelse)
                scope.conditions += len(node.handlers) + bool(node.finalbody)
            case ast.Match():
                scope.decisions += len(node.cases) - irrefutable(node.cases[-1])
                scope.conditions += len(node.cases) + sum(case.guard is not None for case in node.cases)
            case ast.IfExp():
                scope.conditions += 1
            case ast.comprehension():
                scope.conditions += 1 + len(node.ifs)
            case ast.BoolOp():
                scope.conditions += len(node.values) - 1
                self._halstead([node.op] * (len(node.values) - 1), node.values)
            case ast.BinOp():
                self._halstead([node.op], [node.left, node.right])
            case ast.UnaryOp():
                self._halstead([node.op], [node.operand])
            case ast.AugAssign():
                self._halstead([node.op], [node.target, node.value])
            case ast.Compare():
                self._halstead(node.ops, [node.left, *node.comparators])

    def _halstead(self, operators: Sequence[ast.AST], operands: list[ast.expr]) -> None:
        self.operators.extend(type(operator).__name__ for operator in operators)
        for operand in operands:
            match operand:
                case ast.Name():
                    self.operands.append(operand.id)
                case ast.Attribute():
                    self.operands.append("." + operand.attr)
                case ast.Constant():
                    self.operands.append(repr(operand.value)[:80])
                case _:
                    self.operands.append(type(operand).__name__)

    # --- names: imports, variables, builtins

    def _bind(self, name: str, node: ast.AST, scope: Scope) -> None:
        self.rebound.add(name)
        if name in BUILTINS and scope.kind != "class" and name not in scope.declared:
            self.report("shadowed-builtin", node, f"{name!r} hides the builtin of that name", name)

    def _names(self, node: ast.AST, scope: Scope, marks: frozenset[str]) -> None:
        match node:
            case ast.Name(id=name, ctx=ast.Load() | ast.Del()):
                self._load(name, scope)
                if name in {"locals", "vars", "dir", "exec", "eval", "globals"}:
                    self._opaque(scope)
            case ast.Constant(value=str() as text) if "text" in marks and len(text) <= SEGMENT_CHARS_MAX:
                for word in re.findall(r"[^\W\d]\w*", text):
                    self._load(word, scope)
            case ast.AugAssign(target=ast.Name(id=name)):
                self._load(name, scope)
            case ast.Global() | ast.Nonlocal():
                scope.declared.update(node.names)
                for name in node.names:
                    self._load(name, scope.outer)
            case ast.Import() | ast.ImportFrom():
                self._import(node, scope, marks)
            case _:
                self._bindings(node, scope)

    def _bindings(self, node: ast.AST, scope: Scope) -> None:
        match node:
            case ast.Name(id=name):
                self._bind(name, node, scope)
            case ast.arg():
                self._bind(node.arg, node, scope)
            case ast.MatchAs(name=str() as name) | ast.MatchStar(name=str() as name):
                self._bind(name, node, scope)
            case ast.ExceptHandler(name=str() as name):
                self._bind(name, node, scope)
                self._assign(name, node, scope)
            case ast.Assign(targets=targets):
                for target in targets:
                    if isinstance(target, ast.Name):
                        self._assign(target.id, target, scope)
            case (
                ast.AnnAssign(target=ast.Name() as target, value=ast.expr())
                | ast.NamedExpr(target=ast.Name() as target)
                | ast.withitem(optional_vars=ast.Name() as target)
            ):
                self._assign(target.id, target, scope)

    @staticmethod
    def _assign(name: str, node: ast.AST, scope: Scope) -> None:
        if scope.kind == "function":
            scope.assigned.setdefault(name, node)

    def _load(self, name: str, scope: Scope | None) -> None:
        self.used.add(name)
        while scope is not None:
            scope.loaded.add(name)
            scope = scope.outer

    @staticmethod
    def _opaque(scope: Scope | None) -> None:
        while scope is not None:
            scope.opaque = True
            scope = scope.outer

    def _import(self, node: ast.Import | ast.ImportFrom, scope: Scope, marks: frozenset[str]) -> None:
        source = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        relative = "." * node.level if isinstance(node, ast.ImportFrom) else ""
        for alias in node.names:
            if alias.name == "*":
                self.report(
                    "star-import", node, f"names from {relative}{source} cannot be told from the module's own", source
                )
                self.reexports = True
                continue
            if isinstance(node, ast.Import):
                bound = alias.asname or alias.name.partition(".")[0]
                self.aliases[bound] = alias.name if alias.asname else bound
            else:
                bound = alias.asname or alias.name
                self.aliases[bound] = f"{relative}{source}.{alias.name}"
            self.modules.add(self.aliases[bound].partition(".")[0])
            scope.defined.pop(bound, None)
            if bound in BUILTINS and scope.kind != "class":
                self.report("shadowed-builtin", alias, f"{bound!r} hides the builtin of that name", bound)
            explicit = alias.asname is not None and alias.asname == alias.name.rpartition(".")[2]
            if source != "__future__" and not explicit and "optional" not in marks:
                whole = alias.name if isinstance(node, ast.Import) else f"{relative}{source}.{alias.name}"
                self.imports.append((bound, whole, alias))

    def _redefinition(self, node: FunctionNode | ast.ClassDef, scope: Scope, depth: int) -> None:
        """A second definition of one name in one scope, with nothing that could make both meaningful."""
        earlier = scope.defined.get(node.name)
        if earlier is not None and not node.decorator_list and node.name != "_" and node.name not in scope.loaded:
            line = getattr(earlier, "lineno", 0)
            self.report(
                "redefined",
                node,
                f"{node.name!r} replaces the definition in line {line}, which nothing used",
                node.name,
            )
        if depth == 0 and not node.decorator_list:
            scope.defined[node.name] = node
        else:
            scope.defined.pop(node.name, None)

    def dotted(self, node: ast.AST) -> str | None:
        """The full name of what an expression names, imports resolved: ``sp.run`` is ``subprocess.run``."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        parts.append(self.aliases.get(node.id, node.id))
        return ".".join(reversed(parts))

    # --- what can be said only after the walk

    def _after(self, tree: ast.Module) -> None:
        if not self.reexports:
            for bound, whole, alias in self.imports:
                if bound not in self.used:
                    self.report("unused-import", alias, f"{whole!r} is imported and never used", bound)
        for scope in self.scopes:
            if scope.kind == "function" and not scope.opaque:
                for name, node in scope.assigned.items():
                    if name not in scope.loaded and name not in scope.declared and not name.startswith("_"):
                        self.report("unused-variable", node, f"{name!r} is assigned and never used", scope.qualified)
        self._docstrings(tree)
        for scope in self.scopes:
            if isinstance(scope.node, FUNCTIONS):
                self._size(scope, scope.node)

    def _docstrings(self, tree: ast.Module) -> None:
        if self.is_private or self.is_test:
            return
        if tree.body and ast.get_docstring(tree, clean=False) is None:
            self.findings.add("missing-docstring", 1, 1, "the module has no docstring")
        exported = exported_names(tree)
        for scope in self.scopes:
            node = scope.node
            if not isinstance(node, (*FUNCTIONS, ast.ClassDef)) or not is_public(scope, exported):
                continue
            exempt = {"overload", "override", "setter", "deleter", "getter"}
            names = {(self.dotted(decorator) or "").rpartition(".")[2] for decorator in node.decorator_list}
            if not names & exempt and ast.get_docstring(node, clean=False) is None:
                message = f"{kind_of(scope)} {scope.qualified} has no docstring"
                self.report("missing-docstring", node, message, scope.qualified)

    def _size(self, scope: Scope, node: FunctionNode) -> None:
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        taken = len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
        measured = {
            "complexity_max": ("too-complex", scope.complexity(), "a cyclomatic complexity of"),
            "nesting_max": ("deep-nesting", scope.nesting, "a nesting depth of"),
            "arguments_max": ("too-many-arguments", taken, "an argument count of"),
            "function_lines_max": ("long-function", length, "a length in lines of"),
        }
        for limit, (code, value, what) in measured.items():
            if value > self.settings[limit]:
                message = f"expected {what} at most {self.settings[limit]}, got {value}"
                self.report(code, node, message, scope.qualified)

    # --- what the answer says of each

    def functions(self) -> list[dict[str, object]]:
        return [self._function(scope, scope.node) for scope in self.scopes if isinstance(scope.node, FUNCTIONS)]

    def _function(self, scope: Scope, node: FunctionNode) -> dict[str, object]:
        line, column = self.at(node)
        return {
            "name": scope.name,
            "qualified_name": scope.qualified,
            "kind": kind_of(scope),
            "line": line,
            "end_line": node.end_lineno or line,
            "column": column,
            "async": isinstance(node, ast.AsyncFunctionDef),
            "decorators": [self.segment(decorator) for decorator in node.decorator_list],
            "arguments": self._arguments(node.args),
            "returns": self.segment(node.returns),
            "docstring": ast.get_docstring(node, clean=False) is not None,
            "complexity": scope.complexity(),
            "complexity_extended": scope.conditions + 1,
            "nesting": scope.nesting,
        }

    def _arguments(self, given: ast.arguments) -> list[dict[str, object]]:
        plain = [*given.posonlyargs, *given.args]
        defaults: list[ast.expr | None] = [None] * (len(plain) - len(given.defaults)) + list(given.defaults)
        found = []
        for number, (argument, default) in enumerate(zip(plain, defaults, strict=True)):
            kind = "positional_only" if number < len(given.posonlyargs) else "positional"
            found.append(self._argument(argument, kind, default))
        if given.vararg:
            found.append(self._argument(given.vararg, "varargs", None))
        for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
            found.append(self._argument(argument, "keyword_only", default))
        if given.kwarg:
            found.append(self._argument(given.kwarg, "kwargs", None))
        return found

    def _argument(self, argument: ast.arg, kind: str, default: ast.expr | None) -> dict[str, object]:
        return {
            "name": argument.arg,
            "kind": kind,
            "annotation": self.segment(argument.annotation),
            "default": self.segment(default),
        }

    def classes(self) -> list[dict[str, object]]:
        found = []
        for scope in self.scopes:
            node = scope.node
            if isinstance(node, ast.ClassDef):
                line, column = self.at(node)
                found.append(
                    {
                        "name": scope.name,
                        "qualified_name": scope.qualified,
                        "line": line,
                        "end_line": node.end_lineno or line,
                        "column": column,
                        "bases": [self.segment(base) for base in node.bases],
                        "decorators": [self.segment(decorator) for decorator in node.decorator_list],
                        "docstring": ast.get_docstring(node, clean=False) is not None,
                        "methods": [child.name for child in node.body if isinstance(child, FUNCTIONS)],
                    }
                )
        return found

    def volume(self) -> float:
        """Halstead's volume, over the operators and operands of expressions (as the tool ``radon`` takes them)."""
        vocabulary = len(set(self.operators)) + len(set(self.operands))
        return (len(self.operators) + len(self.operands)) * math.log2(vocabulary) if vocabulary else 0.0


def kind_of(scope: Scope) -> str:
    if scope.kind == "class":
        return "class"
    outer = scope.outer.kind if scope.outer else "module"
    return {"class": "method", "function": "nested_function", "module": "function"}[outer]


def is_public(scope: Scope, exported: frozenset[str] | None) -> bool:
    """Whether the module's users see it: no underscore in its path, no function around it, not left out of __all__."""
    place: Scope | None = scope
    while place is not None and place.kind != "module":
        if place.name.startswith("_") or (place is not scope and place.kind == "function"):
            return False
        if place.outer is not None and place.outer.kind == "module" and exported is not None:
            return place.name in exported
        place = place.outer
    return True


def exported_names(tree: ast.Module) -> frozenset[str] | None:
    """What ``__all__`` lists; None when there is none, or none that can be read."""
    found: set[str] | None = None
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)) and exports(node):
            if not isinstance(node.value, (ast.List, ast.Tuple)):
                return None
            found = found or set()
            found.update(str(item.value) for item in node.value.elts if isinstance(item, ast.Constant))
    return None if found is None else frozenset(found)


def irrefutable(case: ast.match_case) -> bool:
    """Whether a case matches everything: ``case _`` or ``case name``, without a guard."""
    patterns = [case.pattern]
    while patterns:
        pattern = patterns.pop()
        if isinstance(pattern, ast.MatchOr):
            patterns.extend(pattern.patterns)
        elif isinstance(pattern, ast.MatchAs) and pattern.pattern is not None:
            patterns.append(pattern.pattern)
        elif isinstance(pattern, ast.MatchAs):
            return case.guard is None
    return False


def catches_import(handler: ast.ExceptHandler) -> bool:
    names = [handler.type] if not isinstance(handler.type, ast.Tuple) else handler.type.elts
    caught = {name.id for name in names if isinstance(name, ast.Name)}
    return handler.type is None or bool(caught & {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


def exports(node: ast.Assign | ast.AugAssign | ast.AnnAssign) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


# --- Python: what one node shows --------------------------------------------------------------------------------------


def check_call(file: PythonFile, node: ast.Call) -> None:
    name = file.dotted(node.func) or ""
    keywords = {word.arg: word.value for word in node.keywords if word.arg}
    root = name.partition(".")[0]
    if name in {"eval", "exec"} and name not in file.rebound:
        file.report(f"{name}-used", node, f"{name}() runs whatever text it is given", name)
    elif name in {"builtins.eval", "builtins.exec"}:
        file.report(f"{node_name(node.func)}-used", node, f"{name}() runs whatever text it is given", name)
    elif name in SHELLS and root in file.modules:
        file.report("shell-command", node, f"{name}() hands its text to a shell", name)
    elif name in SHELL_ARGUMENT and is_true(keywords.get("shell")):
        file.report("shell-command", node, f"{name}(shell=True) hands its text to a shell", name)
    elif name in LOADERS and root in file.modules:
        file.report("unsafe-deserialisation", node, f"{name}() runs code that its input chooses", name)
    elif name in {"yaml.load", "yaml.load_all"} and not safe_loader(node, keywords):
        file.report("unsafe-yaml-load", node, f"{name}() without a safe loader builds any object its input names", name)
    elif name == "tempfile.mktemp":
        file.report(
            "insecure-temporary-file",
            node,
            "tempfile.mktemp() names a file that another process may create first",
            name,
        )
    elif name in {"hashlib.md5", "hashlib.sha1"} and not is_false(keywords.get("usedforsecurity")):
        file.report(
            "weak-hash", node, f"{name}() does not resist collisions; say usedforsecurity=False if that is fine", name
        )
    if is_false(keywords.get("verify")) or name == "ssl._create_unverified_context":
        file.report(
            "tls-verification-off", node, f"{name or 'the call'} does not check the server's certificate", name or None
        )
    for word, value in keywords.items():
        check_secret(file, word, value)
    if (
        isinstance(node.func, ast.Attribute)
        and node.func.attr == "format"
        and isinstance(node.func.value, ast.Constant)
    ):
        check_sql(file, node, node.func.value.value)


def node_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def is_false(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def safe_loader(node: ast.Call, keywords: dict[str, ast.expr]) -> bool:
    loader = keywords.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
    return loader is not None and node_name(loader) in {"SafeLoader", "CSafeLoader", "BaseLoader", "CBaseLoader"}


def check_secret(file: PythonFile, name: str, value: ast.AST | None) -> None:
    if isinstance(value, ast.Constant) and isinstance(value.value, str) and looks_secret(name, value.value):
        file.report("hardcoded-secret", value, f"a secret stands in the source as the value of {name!r}", name)


def looks_secret(name: str, value: str) -> bool:
    spelled = CAMEL.sub("_", name).lower()
    own_name = re.sub(r"[^a-z]", "", value.lower()) == re.sub(r"[^a-z]", "", spelled)
    return (
        bool(SECRET_NAME.search(spelled)) and not PLACEHOLDER.match(value) and not own_name and " " not in value.strip()
    )


def check_constant(file: PythonFile, node: ast.Constant) -> None:
    if isinstance(node.value, str) and len(node.value) >= 16 and SECRET_SHAPE.search(node.value):
        file.report("hardcoded-secret", node, "a key or token of a known form stands in the source")


def check_assign(file: PythonFile, node: ast.Assign | ast.AnnAssign) -> None:
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        if isinstance(target, (ast.Name, ast.Attribute)):
            check_secret(file, node_name(target), node.value)
        elif isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
            check_secret(file, str(target.slice.value), node.value)


def check_dict(file: PythonFile, node: ast.Dict) -> None:
    seen: dict[object, ast.expr] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if isinstance(key, ast.Constant):
            if isinstance(key.value, str):
                check_secret(file, key.value, value)
            mark = (type(key.value).__name__, key.value)
            if mark in seen and file.segment(seen[mark]) != file.segment(value):
                file.report("duplicate-key", key, f"the key {key.value!r} is given twice; the last one counts")
            seen[mark] = value


def check_sql(file: PythonFile, node: ast.AST, text: object) -> None:
    if isinstance(text, str) and SQL.search(text):
        file.report("sql-from-strings", node, "SQL is put together from strings; use the driver's parameters")


def check_binary(file: PythonFile, node: ast.BinOp) -> None:
    left: ast.expr = node.left
    while isinstance(left, ast.BinOp) and isinstance(left.op, ast.Add):
        if isinstance(left.right, ast.Constant) and not isinstance(node.right, ast.Constant):
            break
        left = left.left
    if not isinstance(left, ast.Constant) or isinstance(node.right, ast.Constant):
        return
    if isinstance(node.op, (ast.Add, ast.Mod)):
        check_sql(file, node, left.value)


def check_joined(file: PythonFile, node: ast.JoinedStr) -> None:
    if any(isinstance(part, ast.FormattedValue) for part in node.values):
        parts = [str(part.value) if isinstance(part, ast.Constant) else "?" for part in node.values]
        check_sql(file, node, "".join(parts))


def check_arguments(file: PythonFile, node: ast.arguments) -> None:
    for default in [*node.defaults, *node.kw_defaults]:
        mutable = isinstance(default, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp))
        if isinstance(default, ast.Call):
            mutable = file.dotted(default.func) in MUTABLE_CALLS
        if mutable and default is not None:
            file.report("mutable-default", default, "the default is made once and shared by every call")


def check_compare(file: PythonFile, node: ast.Compare) -> None:
    left = node.left
    for operator, right in zip(node.ops, node.comparators, strict=True):
        equality = isinstance(operator, (ast.Eq, ast.NotEq))
        for side in (left, right) if equality else ():
            if isinstance(side, ast.Constant) and side.value is None:
                wanted = "is None" if isinstance(operator, ast.Eq) else "is not None"
                file.report("none-comparison", side, f"expected '{wanted}': == asks the object, not its identity")
            elif isinstance(side, ast.Constant) and isinstance(side.value, bool):
                file.report("bool-comparison", side, f"a comparison with {side.value} says less than the value itself")
        if isinstance(operator, (ast.Is, ast.IsNot)):
            for side in (left, right):
                if (
                    isinstance(side, ast.Constant)
                    and isinstance(side.value, (str, bytes, int, float))
                    and not isinstance(side.value, bool)
                ):
                    file.report(
                        "literal-identity", node, "'is' compares identity; whether equal literals share one is chance"
                    )
        same = isinstance(left, (ast.Name, ast.Attribute)) and file.segment(left) == file.segment(right)
        if same and not isinstance(operator, (ast.In, ast.NotIn)):
            file.report("self-comparison", node, "both sides are the same expression")
        left = right


def check_handler(file: PythonFile, node: ast.ExceptHandler) -> None:
    reraises = any(isinstance(inner, ast.Raise) for statement in node.body for inner in ast.walk(statement))
    if node.type is None:
        word = "bare-except"
        if not reraises:
            file.report(word, node, "a bare except also catches SystemExit and KeyboardInterrupt")
    caught = {
        node_name(name)
        for name in (node.type.elts if isinstance(node.type, ast.Tuple) else [node.type] if node.type else [])
    }
    broad = node.type is None or bool(caught & {"Exception", "BaseException"})
    if broad and len(node.body) == 1 and is_empty(node.body[0]):
        file.report("exception-ignored", node, "whatever goes wrong here is lost without a trace")


def is_empty(node: ast.stmt) -> bool:
    return isinstance(node, ast.Pass) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is Ellipsis
    )


def check_try(file: PythonFile, node: ast.Try) -> None:
    check_blocks(file, node)
    stack: list[ast.AST] = list(node.finalbody)
    while stack:
        inner = stack.pop()
        if isinstance(inner, (ast.Return, ast.Break, ast.Continue)):
            file.report("return-in-finally", inner, "leaving a finally block swallows the exception that is on its way")
        if not isinstance(inner, (*FUNCTIONS, ast.ClassDef, ast.Lambda, ast.For, ast.AsyncFor, ast.While)):
            stack.extend(ast.iter_child_nodes(inner))


def check_blocks(file: PythonFile, node: ast.AST) -> None:
    """Statements after return, raise, continue or break; a yield there makes the function a generator and is meant."""
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        if not isinstance(block, list):
            continue
        for place, statement in enumerate(block[:-1]):
            following = block[place + 1]
            generator = isinstance(following, ast.Expr) and isinstance(following.value, (ast.Yield, ast.YieldFrom))
            if isinstance(statement, STOPS) and not generator:
                word = type(statement).__name__.lower()
                file.report("unreachable-code", following, f"nothing after this {word} is ever run")
                break


def check_assert(file: PythonFile, node: ast.Assert) -> None:
    if isinstance(node.test, ast.Tuple) and node.test.elts:
        file.report("assert-on-tuple", node, "a tuple is true whatever it holds")
        return
    if file.is_test:
        return
    for inner in ast.walk(node.test):
        name = inner.id if isinstance(inner, ast.Name) else inner.attr if isinstance(inner, ast.Attribute) else ""
        if name and SECURITY_WORDS.search(CAMEL.sub("_", name)):
            file.report("assert-for-security", node, f"python -O removes this check of {name!r}", name)
            return


CHECKS: dict[type[ast.AST], Callable[[PythonFile, Any], None]] = {
    ast.Call: check_call,
    ast.Constant: check_constant,
    ast.Assign: check_assign,
    ast.AnnAssign: check_assign,
    ast.Dict: check_dict,
    ast.BinOp: check_binary,
    ast.JoinedStr: check_joined,
    ast.arguments: check_arguments,
    ast.Compare: check_compare,
    ast.ExceptHandler: check_handler,
    ast.Try: check_try,
    ast.TryStar: check_try,
    ast.Assert: check_assert,
    ast.Module: check_blocks,
    ast.If: check_blocks,
    ast.For: check_blocks,
    ast.AsyncFor: check_blocks,
    ast.While: check_blocks,
    ast.With: check_blocks,
    ast.AsyncWith: check_blocks,
    ast.match_case: check_blocks,
}


def parse_python(text: str, tokens: "PythonTokens", findings: Findings) -> ast.Module | None:
    """The tree, or None with a finding that says where and why not."""
    if tokens.too_deep is not None:
        findings.add(
            "nested-too-deeply", *tokens.too_deep, "brackets, operators or elif nest too deeply to be parsed here"
        )
        return None
    try:
        with warnings.catch_warnings(record=True) as noticed:
            warnings.simplefilter("always")
            tree = ast.parse(text)
    except SyntaxError as error:
        line = min(max(error.lineno or 1, 1), text.count("\n") + 1)
        findings.add("syntax-error", line, max(error.offset or 1, 1), str(error.msg))
        return None
    except (RecursionError, MemoryError, ValueError) as error:
        code = "syntax-error" if isinstance(error, ValueError) else "nested-too-deeply"
        findings.add(code, 1, 1, f"the parser gave up: {type(error).__name__}: {error}")
        return None
    for notice in noticed:
        if "escape sequence" in str(notice.message):
            findings.add("invalid-escape", notice.lineno, 1, str(notice.message))
    return tree


# --- languages with braces: tokens and brackets -----------------------------------------------------------------------

STRING = r'"(?:\\.|[^"\\\n])*"'
CHARACTER = r"'(?:\\.|[^'\\\n])+'"
OPERATORS = r"=>|->|&&|\|\||\?\?=?|\?\.(?!\d)|::|[=!]==?|[-+*/%&|^<>]=|\+\+|--|\.\.\.|[^\w\s]"


class Language:
    """How a family of languages writes what is counted here."""

    __slots__ = (
        "_compiled",
        "_pattern",
        "branches",
        "conditions",
        "directives",
        "dynamic",
        "functions",
        "name",
        "types",
    )

    def __init__(
        self,
        name: str,
        *,
        branches: str,
        strings: str = f"{STRING}|{CHARACTER}",
        functions: str = "",
        conditions: str = "&& || ?",
        types: str = "class struct interface enum",
        directives: bool = False,
        dynamic: str = "",
    ) -> None:
        self.name = name
        self.branches = frozenset(branches.split())
        self.conditions = frozenset(conditions.split())
        self.functions = functions
        self.types = frozenset(types.split())
        self.directives = directives
        self.dynamic = dynamic
        self._compiled: re.Pattern[str] | None = None
        self._pattern = (
            rf"(?P<space>\s+)|(?P<comment>//[^\n]*|/\*(?s:.*?)(?:\*/|\Z))|(?P<string>{strings})|"
            rf"(?P<number>\.?\d(?:[eEpP][-+]|[\w.])*)|(?P<word>[@$]?[^\W\d][\w$]*)|(?P<operator>{OPERATORS})"
        )

    @property
    def pattern(self) -> re.Pattern[str]:
        """The tokens of the language; compiled when its first file is read."""
        if self._compiled is None:
            self._compiled = re.compile(self._pattern)
        return self._compiled


C_STRINGS = (
    r'(?:u8|[LuU])?R"(?P<delimiter>[^()\s\\]{0,16})\((?s:.*?)\)(?P=delimiter)"|'
    rf"(?:u8|[LuU])?{STRING}|(?:u8|[LuU])?{CHARACTER}"
)
RUST_STRINGS = (
    r'b?r(?P<hashes>#*)"(?s:.*?)"(?P=hashes)|b?"(?s:\\.|[^"\\])*"|'
    r"b?'(?:\\[^']+|\\'|[^'\\\n])'|'[^\W\d]\w*"
)
BRACE_LANGUAGES = {
    "c": Language("c", branches="if for while case", strings=C_STRINGS, directives=True, types="struct union enum"),
    "cpp": Language(
        "cpp", branches="if for while case catch", strings=C_STRINGS, conditions="&& || ? and or", directives=True,
        types="class struct union enum namespace",
    ),
    "csharp": Language(
        "csharp", branches="if for foreach while case catch", conditions="&& || ? ??", directives=True,
        strings=rf'\$?@\$?"(?:""|[^"])*"|\$?{STRING}|{CHARACTER}', types="class struct interface enum record namespace",
    ),
    "java": Language(
        "java", branches="if for while case catch", strings=rf'"""(?s:.*?)"""|{STRING}|{CHARACTER}',
        types="class interface enum record @interface",
    ),
    "javascript": Language(
        "javascript", branches="if for while case catch", conditions="&& || ? ??", functions="function", types="class",
        dynamic="eval",
    ),
    "typescript": Language(
        "typescript", branches="if for while case catch", conditions="&& || ? ??", functions="function",
        types="class interface enum namespace", dynamic="eval",
    ),
    "go": Language(
        "go", branches="if for case", conditions="&& ||", functions="func", strings=rf"`[^`]*`|{STRING}|{CHARACTER}",
        types="struct interface",
    ),
    "rust": Language(
        "rust", branches="if for while", conditions="&& || ?", functions="fn", strings=RUST_STRINGS,
        types="struct enum trait impl union mod",
    ),
}  # fmt: skip
SCRIPTS = frozenset({"javascript", "typescript"})
CONTROL_WORDS = word_set(
    "if for while switch catch with foreach using lock synchronized fixed else do try finally when select match"
)
NO_FUNCTION = CONTROL_WORDS | word_set("return new throw sizeof typeof await case default")
BEFORE_REGEX = word_set("( , = : [ ! & | ? { } ; + - * % ^ ~ < > => && || return typeof case in of delete void throw")
AFTER_PARAMETERS = word_set("const noexcept override final throws -> : & && where volatile try ( [")
SCOPES_ONLY = word_set("namespace impl mod")
DIRECTIVE = re.compile(r"[ \t]*(\w*)(?:[^\n\\]|\\(?s:.))*")
OPEN, CLOSE = {"(": ")", "[": "]", "{": "}"}, frozenset(")]}")


class Token:
    __slots__ = ("kind", "place", "text")

    def __init__(self, kind: str, text: str, place: int) -> None:
        self.kind, self.text, self.place = kind, text, place


class Block:
    """An open bracket: what it belongs to, and where the statement that it now holds began."""

    __slots__ = ("arms", "bracket", "control", "function", "kind", "name", "start")

    def __init__(
        self, bracket: str, kind: str, name: str, start: int, function: "Routine | None", control: int
    ) -> None:
        self.bracket, self.kind, self.name, self.start = bracket, kind, name, start
        self.function, self.control = function, control
        self.arms = 0


class Routine:
    """A function found among the tokens."""

    __slots__ = (
        "arguments",
        "asynchronous",
        "conditions",
        "decisions",
        "end",
        "kind",
        "name",
        "nesting",
        "place",
        "qualified",
    )

    def __init__(
        self, name: str, qualified: str, kind: str, place: int, arguments: list[str], *, asynchronous: bool
    ) -> None:
        self.name, self.qualified, self.kind, self.place, self.arguments = name, qualified, kind, place, arguments
        self.asynchronous = asynchronous
        self.decisions = self.conditions = self.nesting = 0
        self.end = place


class BraceFile:
    """Everything that one pass over the tokens of a brace language finds."""

    def __init__(self, text: str, language: Language, findings: Findings, settings: dict[str, int]) -> None:
        self.text, self.language, self.findings, self.settings = text, language, findings, settings
        self.line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self.code_lines: set[int] = set()
        self.comment_lines: set[int] = set()
        self.routines: list[Routine] = []
        self.types: list[tuple[str, str, int, int]] = []
        self.loose = 0
        self.tokens = self._tokens()
        self._brackets()
        self._suspicious()
        for routine in self.routines:
            self._size(routine)

    def at(self, place: int) -> tuple[int, int]:
        low, high = 0, len(self.line_starts)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.line_starts[middle] <= place else (low, middle)
        return low + 1, place - self.line_starts[low] + 1

    def report(self, code: str, place: int, message: str, symbol: str | None = None) -> None:
        self.findings.add(code, *self.at(place), message, symbol)

    # --- tokens

    def _tokens(self) -> list[Token]:
        found: list[Token] = []
        text, place, size = self.text, 0, len(self.text)
        pattern = self.language.pattern
        fresh_line = True
        while place < size:
            if text[place] == "#" and self.language.directives and fresh_line:
                place = self._directive(place)
                continue
            if self.language.name in SCRIPTS and text[place] in "`/":
                end = self._script_literal(place, found)
                if end > place:
                    found.append(Token("string", text[place:end], place))
                    self._mark(self.code_lines, place, end)
                    place, fresh_line = end, False
                    continue
            match = pattern.match(text, place)
            if match is None:
                place += 1
                continue
            end = match.end()
            kind = next(
                name for name in ("space", "comment", "string", "number", "word", "operator") if match[name] is not None
            )
            if kind == "comment":
                if self.language.name == "rust" and match[0].startswith("/*"):
                    end = self._nested_comment(place)
                self._mark(self.comment_lines, place, end)
            elif kind != "space":
                found.append(Token(kind, text[place:end], place))
                self._mark(self.code_lines, place, end)
            if kind == "space":
                fresh_line = fresh_line or "\n" in match[0]
            elif kind != "comment":
                fresh_line = False
            place = end
        return found

    def _mark(self, lines: set[int], start: int, end: int) -> None:
        first, last = self.at(start)[0], self.at(max(start, end - 1))[0]
        lines.update(range(first, last + 1))

    def _nested_comment(self, place: int) -> int:
        depth = 0
        for mark in re.finditer(r"/\*|\*/", self.text[place:]):
            depth += 1 if mark[0] == "/*" else -1
            if depth == 0:
                return place + mark.end()
        return len(self.text)

    def _directive(self, place: int) -> int:
        """Skip one directive, and with #else, #elif and #if 0 the lines that another reading would compile."""
        match = DIRECTIVE.match(self.text, place + 1)
        end = match.end() if match else place + 1
        word = match[1] if match else ""
        self._mark(self.code_lines, place, end)
        never = word == "if" and self.text[place:end].split()[-1] == "0"
        if word not in {"else", "elif"} and not never:
            return end
        depth = 0
        for line in re.finditer(r"^[ \t]*#[ \t]*(if|ifdef|ifndef|else|elif|endif)\b", self.text[end:], re.MULTILINE):
            if line[1].startswith("if"):
                depth += 1
            elif line[1] == "endif":
                if depth == 0:
                    return end + line.end()
                depth -= 1
            elif depth == 0 and never:
                return end + line.end()
        return len(self.text)

    def _script_literal(self, place: int, found: list[Token]) -> int:
        """The end of a template literal or a regular expression that starts here; ``place`` if none does."""
        text = self.text
        if text[place] == "`":
            position, depth = place + 1, 0
            while position < len(text):
                sign = text[position]
                if sign == "\\":
                    position += 1
                elif text.startswith("${", position):
                    depth += 1
                    position += 1
                elif sign == "}" and depth:
                    depth -= 1
                elif sign == "`" and not depth:
                    return position + 1
                position += 1
            return len(text)
        before = found[-1].text if found else "("
        if text.startswith(("//", "/*"), place) or before not in BEFORE_REGEX:
            return place
        match = SCRIPT_REGEX.match(text, place)
        return match.end() if match else place

    # --- brackets

    def _brackets(self) -> None:
        tokens = self.tokens
        self.pairs = self._pairs()
        blocks = [Block("", "file", "", 0, None, 0)]
        for index, token in enumerate(tokens):
            top = blocks[-1]
            if token.kind == "operator" and token.text in OPEN:
                blocks.append(self._opened(index, blocks))
            elif token.kind == "operator" and token.text in CLOSE:
                if len(blocks) > 1 and OPEN[top.bracket] == token.text:
                    blocks.pop()
                    self._closed(top, index, blocks[-1])
            elif token.text == ";" and token.kind == "operator":
                top.start = index + 1
            elif token.text == "=>" and top.kind == "match":
                top.arms += 1
                top.start = index + 1
            else:
                if token.text == ":" and top.bracket == "{" and self._is_label(top.start, index):
                    top.start = index + 1
                self._counted(index, top)

    def _is_label(self, start: int, colon: int) -> bool:
        """``case …:`` and ``default:``, and the ``public:`` of C++; not the colon of a type."""
        first = self.tokens[start].text
        return first in {"case", "default"} or (first in {"public", "private", "protected"} and colon == start + 1)

    def _pairs(self) -> dict[int, int]:
        pairs: dict[int, int] = {}
        stack: list[int] = []
        wrong = None
        for index, token in enumerate(self.tokens):
            if token.kind != "operator":
                continue
            if token.text in OPEN:
                stack.append(index)
            elif token.text in CLOSE:
                if stack and OPEN[self.tokens[stack[-1]].text] == token.text:
                    pairs[stack.pop()] = index
                else:
                    wrong = wrong or token
        if wrong is None and stack:
            wrong = self.tokens[stack[-1]]
        if wrong is not None:
            self.report(
                "unbalanced-brackets", wrong.place, f"{wrong.text!r} has no partner; what follows may be misread"
            )
        return pairs

    def _closed(self, block: Block, index: int, outer: Block) -> None:
        end = self.tokens[index].place
        if block.kind == "match" and block.function:
            block.function.decisions += max(0, block.arms - 1)
        if block.kind == "function" and block.function:
            block.function.end = end
        if block.bracket == "{" and block.kind in {"function", "type", "control", "match", "block"}:
            outer.start = index + 1

    def _counted(self, index: int, top: Block) -> None:
        token, before = self.tokens[index], self.tokens[index - 1].text if index else ""
        if token.kind == "word" and token.text in self.language.branches:
            if before in {".", "::", "?."}:
                return
            if token.text == "while" and self.language.name == "go":
                return
            self._decision(top, token.text)
        elif token.text in self.language.conditions and token.kind in {"operator", "word"}:
            self._condition(index, top)

    def _decision(self, top: Block, word: str) -> None:
        if top.function:
            top.function.decisions += 1
        else:
            self.loose += word != ""

    def _condition(self, index: int, top: Block) -> None:
        token = self.tokens[index]
        before = self.tokens[index - 1].text if index else ""
        after = self.tokens[index + 1].text if index + 1 < len(self.tokens) else ""
        language = self.language.name
        if top.function is None:
            return
        if token.text == "?":
            if language == "rust":
                top.function.decisions += 1
                return
            spaced = token.place > 0 and self.text[token.place - 1].isspace()
            optional = after in {":", ")", ",", ";", "=", "]", ">", "?", "|"}
            if optional or before in {"<", ","} or (language == "csharp" and not spaced):
                return
        if language == "rust" and token.text in {"||", "&&"}:
            closure = before in {"(", ",", "=", "{", ";", "return", "move", "=>", "[", "&&", "||"} or before == ""
            if closure:
                return
        if (
            language == "cpp"
            and token.text == "&&"
            and (after in {")", ",", ">", "..."} or before in {"auto", ">", "typename"})
        ):
            return
        top.function.conditions += 1

    # --- what an opening bracket belongs to

    def _opened(self, index: int, blocks: list[Block]) -> Block:
        top = blocks[-1]
        bracket = self.tokens[index].text
        if bracket != "{":
            return Block(bracket, "group", "", index + 1, top.function, top.control)
        header = self._outer(top.start, index)
        words = [self.tokens[position].text for position in header]
        routine = self._routine(header, words, blocks)
        if routine is not None:
            self.routines.append(routine)
            return Block("{", "function", routine.name, index + 1, routine, 0)
        named = self._type(header, words)
        if named is not None:
            name, place = named
            qualified = ".".join([*(block.name for block in blocks if block.kind == "type"), name])
            end = self.tokens[self.pairs[index]].place if index in self.pairs else len(self.text)
            if SCOPES_ONLY.isdisjoint(words):
                self.types.append((name, qualified, place, end))
            return Block("{", "type", name, index + 1, None, 0)
        if words[-1:] == ["("] and "new" in words[-4:-2]:  # the body of an anonymous class
            return Block("{", "type", "(anonymous)", index + 1, None, 0)
        kind = self._plain_kind(words)
        block = Block("{", kind, "", index + 1, top.function, top.control)
        return self._control(block) if kind in {"match", "control"} else block

    def _plain_kind(self, words: list[str]) -> str:
        """What a brace is that opens neither a function nor a type."""
        if "match" in words and self.language.name == "rust":
            return "match"
        if words[-1:] == ["else"] or not CONTROL_WORDS.isdisjoint(words[:4]):
            return "control"
        plain = not words or words[-1] in {"unsafe", "do", "loop", "static", "async", "=>", "->"}
        return "block" if plain else "value"

    @staticmethod
    def _control(block: Block) -> Block:
        block.control += 1
        if block.function:
            block.function.nesting = max(block.function.nesting, block.control)
        return block

    def _outer(self, start: int, end: int) -> list[int]:
        """Positions of a statement's tokens outside of its brackets; a bracket is there as its opening token."""
        found: list[int] = []
        position = start
        while position < end:
            found.append(position)
            position = self.pairs.get(position, position) + 1
        return found

    def _type(self, header: list[int], words: list[str]) -> tuple[str, int] | None:
        if "=" in words or "return" in words:
            return None
        order = next((order for order, word in enumerate(words) if word in self.language.types), None)
        if order is None:
            return None
        if self.language.name == "go":
            known = order >= 2 and words[order - 2] == "type"
            return (words[order - 1], self.tokens[header[order - 1]].place) if known else None
        start = order + 1
        if words[order] == "impl" and "for" in words[order:]:
            start = words.index("for", order) + 1
        elif words[order] == "impl" and words[start : start + 1] == ["<"] and ">" in words[start:]:
            start = words.index(">", start) + 1
        for place in header[start:]:
            if self.tokens[place].kind == "word" and self.tokens[place].text not in {"class", "struct"}:
                return self.tokens[place].text, self.tokens[place].place
        return None

    def _routine(self, header: list[int], words: list[str], blocks: list[Block]) -> Routine | None:
        word = self.language.functions
        if words[-1:] == ["=>"] and self.language.name in SCRIPTS:
            return self._arrow(header, words, blocks)
        if word and word in words:
            return self._declared(header, words, blocks, len(words) - 1 - words[::-1].index(word))
        if self.language.name in {"go", "rust"}:
            return None
        inside = next((block for block in reversed(blocks) if block.kind in {"function", "type"}), None)
        if inside is not None and inside.kind == "function" and self.language.name not in SCRIPTS:
            return None
        order = self._parameters_at(header, words)
        return None if order is None else self._plain(header, words, blocks, order)

    def _parameters_at(self, header: list[int], words: list[str]) -> int | None:
        """Which bracket of a statement like ``int Foo::bar(int a) const`` holds the parameters."""
        groups = [order for order, word in enumerate(words) if word == "(" and order > 0]
        for order in reversed(groups):
            tail = words[order + 1 : order + 2]
            if tail and tail[0] not in AFTER_PARAMETERS:
                continue
            if self.language.name == "cpp":  # the bracket before ": member(value)" of a constructor
                earlier = [place for place in groups if place < order and ":" in words[place:order]]
                if earlier and words[earlier[0] - 1] not in NO_FUNCTION:
                    return earlier[0]
            name = self.tokens[header[order - 1]]
            if "operator" in words[max(0, order - 3) : order]:
                return order
            if name.kind == "word" and name.text not in NO_FUNCTION and not name.text.startswith("@"):
                return order
        return None

    def _plain(self, header: list[int], words: list[str], blocks: list[Block], order: int) -> Routine | None:
        """A function that no keyword announces: C, C++, C#, Java, and methods of scripts."""
        last = self.tokens[header[-1]]
        if self.language.name == "cpp" and ":" in words[order:] and last.kind == "word":
            return None  # not the body: ": member{value}"
        if "operator" in words[max(0, order - 3) : order]:
            start = order - 1 - words[:order][::-1].index("operator")
            return self._make("".join(words[start:order]), header[start], header[order], blocks, words)
        before = words[order - 2] if order >= 2 else ""
        if "=" in words[:order] or before in {"new", ".", "return", "->", "?.", ":"}:
            return None
        full, start = words[order - 1], order - 1
        while self.language.name == "cpp" and start >= 1 and words[start - 1] in {"::", "~"}:
            take = 2 if words[start - 1] == "::" else 1
            full = "".join(words[max(0, start - take) : start]) + full
            start = max(0, start - take)
        return self._make(full, header[start], header[order], blocks, words)

    def _declared(self, header: list[int], words: list[str], blocks: list[Block], order: int) -> Routine | None:
        """``func``, ``fn`` or ``function`` stands in the statement: the name and the parameters follow it."""
        if words[-1] in {"interface", "struct"} and self.language.name == "go":
            return None
        after = order + 1
        receiver = ""
        if words[after : after + 1] == ["*"]:
            after += 1
        if (
            self.language.name == "go"
            and words[after : after + 1] == ["("]
            and after + 1 < len(words)
            and self.tokens[header[after + 1]].kind == "word"
        ):
            inside = self._outer(header[after] + 1, self.pairs.get(header[after], header[after]))
            named = [self.tokens[place].text for place in inside if self.tokens[place].kind == "word"]
            follows = words[after + 2 : after + 3]
            if follows in (["("], ["["]):
                receiver = (named[1] if len(named) > 1 else named[0]) if named else ""
                after += 1
        name, place = "(anonymous)", header[order]
        if after < len(words) and self.tokens[header[after]].kind == "word":
            name, place = words[after], header[after]
        elif self.language.name in SCRIPTS:
            name, place = self._assigned_name(header[:order], words[:order], place)
        groups = [position for position in header[after:] if self.tokens[position].text == "("]
        if not groups:
            return None
        return self._make(name, place, groups[0], blocks, words, receiver=receiver)

    def _arrow(self, header: list[int], words: list[str], blocks: list[Block]) -> Routine:
        last = len(words) - 2
        groups = [order for order in range(last + 1) if words[order] == "("]
        order = groups[-1] if groups and (groups[-1] == last or ":" in words[groups[-1] : last + 1]) else last
        name, place = self._assigned_name(header[:order], words[:order], header[max(order, 0)])
        return self._make(name, place, header[max(order, 0)], blocks, words)

    def _assigned_name(self, header: list[int], words: list[str], place: int) -> tuple[str, int]:
        while words and words[-1] in {"async", "function", "*"}:
            header, words = header[:-1], words[:-1]
        if words[-1:] in (["="], [":"]) and len(words) >= 2:
            for order, word in enumerate(words[:-1]):
                if word in {"const", "let", "var"} and order + 1 < len(words):
                    return words[order + 1], header[order + 1]
            if self.tokens[header[-2]].kind in {"word", "string"}:
                return words[-2].strip("\"'"), header[-2]
        return "(anonymous)", place

    def _make(
        self, name: str, place: int, group: int, blocks: list[Block], words: list[str], *, receiver: str = ""
    ) -> Routine:
        outer = [block.name for block in blocks if block.kind in {"type", "function"}]
        kinds = [block.kind for block in blocks if block.kind in {"type", "function"}]
        kind = {"type": "method", "function": "nested_function"}[kinds[-1]] if kinds else "function"
        if receiver or "::" in name:
            kind = "method"
        around = next((block.function for block in reversed(blocks) if block.kind == "function"), None)
        if around is not None and kinds[-1] == "function":
            outer = [around.qualified]
        qualified = ".".join([*outer, *([receiver] if receiver else []), name])
        return Routine(
            name, qualified, kind, self.tokens[place].place, self._parameters(group), asynchronous="async" in words
        )

    def _parameters(self, group: int) -> list[str]:
        if self.tokens[group].text != "(":
            return [self.tokens[group].text] if self.tokens[group].kind == "word" else []
        found: list[str] = []
        part: list[Token] = []
        depth = 0
        for position in [*self._outer(group + 1, self.pairs.get(group, group)), -1]:
            token = self.tokens[position]
            if position != -1:
                depth += {"<": 1, ">": -1}.get(token.text, 0)
            if position == -1 or (token.text == "," and depth <= 0):
                name = self._parameter(part)
                if name:
                    found.append(name)
                part = []
            else:
                part.append(token)
        return found

    def _parameter(self, part: list[Token]) -> str:
        texts = [token.text for token in part]
        if not texts or texts == ["void"]:
            return ""
        for stop in ("=", ":"):
            if stop in texts:
                part = part[: texts.index(stop)]
                texts = texts[: texts.index(stop)]
        words = [
            token.text
            for token in part
            if token.kind == "word" and token.text not in {"mut", "ref", "final", "const", "readonly"}
        ]
        if not words:
            return "".join(texts)[:40]
        if self.language.name in {"go", "javascript", "typescript", "rust"}:
            skipped = [word for word in words if word not in {"public", "private", "protected"}]
            return skipped[0] if skipped else words[0]
        return words[-1]

    # --- suspicious constructs

    def _suspicious(self) -> None:
        for index, token in enumerate(self.tokens):
            after = self.tokens[index + 1].text if index + 1 < len(self.tokens) else ""
            before = self.tokens[index - 1].text if index else ""
            if token.kind == "string":
                self._suspicious_string(index, before, after)
            elif token.kind == "word":
                self._suspicious_word(index, before, after)

    def _suspicious_string(self, index: int, before: str, after: str) -> None:
        token = self.tokens[index]
        value = token.text.strip("\"'`")
        if SECRET_SHAPE.search(value):
            self.report("hardcoded-secret", token.place, "a key or token of a known form stands in the source")
        elif before in {"=", ":", ":="} and index >= 2:
            name = self.tokens[index - 2 - (self.tokens[index - 2].text == ":")].text.strip("\"'")
            if len(token.text) > 2 and looks_secret(name, value):
                self.report(
                    "hardcoded-secret", token.place, f"a secret stands in the source as the value of {name!r}", name
                )
        if SQL.search(value) and (
            after in {"+", "."} or (token.text[0] == "`" and "${" in value) or token.text[0] == "$"
        ):
            self.report(
                "sql-from-strings", token.place, "SQL is put together from strings; use the driver's parameters"
            )

    def _suspicious_word(self, index: int, before: str, after: str) -> None:
        token, language = self.tokens[index], self.language.name
        word = token.text
        called = after == "(" and before not in {".", "->", "::", "?.", "function", "fn", "func"}
        declared = index > 0 and self.tokens[index - 1].kind == "word" and before not in NO_FUNCTION
        if called and not declared and language in {"c", "cpp"} and word in UNSAFE_C:
            self.report("unsafe-function", token.place, f"{word}() {UNSAFE_C[word]}", word)
        elif called and not declared and language in {"c", "cpp"} and word in {"system", "popen"}:
            self.report("shell-command", token.place, f"{word}() hands its text to a shell", word)
        elif called and word == self.language.dynamic and not declared:
            self.report("eval-used", token.place, f"{word}() runs whatever text it is given", word)
        elif word == "Function" and before == "new" and language in SCRIPTS:
            self.report("eval-used", token.place, "new Function() runs whatever text it is given", word)
        elif word in {"rejectUnauthorized", "InsecureSkipVerify"}:
            value = self.tokens[index + 2].text if index + 2 < len(self.tokens) else ""
            if value == ("true" if word == "InsecureSkipVerify" else "false"):
                self.report("tls-verification-off", token.place, f"{word} is set: the certificate is not checked", word)
        elif word == "catch" and before != ".":
            self._empty_catch(index)

    def _empty_catch(self, index: int) -> None:
        place = index + 1
        if place < len(self.tokens) and self.tokens[place].text == "(":
            place = self.pairs.get(place, place) + 1
        if place < len(self.tokens) and self.tokens[place].text == "{" and self.pairs.get(place) == place + 1:
            self.report(
                "exception-ignored", self.tokens[index].place, "whatever goes wrong here is lost without a trace"
            )

    # --- what the answer says of each

    def _size(self, routine: Routine) -> None:
        first, last = self.at(routine.place)[0], self.at(routine.end)[0]
        measured = {
            "complexity_max": ("too-complex", routine.decisions + 1, "a cyclomatic complexity of"),
            "nesting_max": ("deep-nesting", routine.nesting, "a nesting depth of"),
            "arguments_max": ("too-many-arguments", len(routine.arguments), "an argument count of"),
            "function_lines_max": ("long-function", last - first + 1, "a length in lines of"),
        }
        for limit, (code, value, what) in measured.items():
            if value > self.settings[limit]:
                message = f"expected {what} at most {self.settings[limit]}, got {value}"
                self.report(code, routine.place, message, routine.qualified)

    def functions(self) -> list[dict[str, object]]:
        found = []
        for routine in sorted(self.routines, key=lambda routine: routine.place):
            line, column = self.at(routine.place)
            found.append(
                {
                    "name": routine.name,
                    "qualified_name": routine.qualified,
                    "kind": routine.kind,
                    "line": line,
                    "end_line": self.at(routine.end)[0],
                    "column": column,
                    "async": routine.asynchronous,
                    "decorators": [],
                    "arguments": [
                        {"name": name, "kind": "positional", "annotation": None, "default": None}
                        for name in routine.arguments
                    ],
                    "returns": None,
                    "docstring": None,
                    "complexity": routine.decisions + 1,
                    "complexity_extended": routine.decisions + routine.conditions + 1,
                    "nesting": routine.nesting,
                }
            )
        return found

    def classes(self) -> list[dict[str, object]]:
        found = []
        for name, qualified, place, end in self.types:
            line, column = self.at(place)
            methods = [routine.name for routine in self.routines if routine.qualified == f"{qualified}.{routine.name}"]
            found.append(
                {
                    "name": name,
                    "qualified_name": qualified,
                    "line": line,
                    "end_line": self.at(end)[0],
                    "column": column,
                    "bases": [],
                    "decorators": [],
                    "docstring": None,
                    "methods": methods,
                }
            )
        return found

    def volume(self) -> float:
        operators = [token.text for token in self.tokens if token.kind == "operator"]
        operands = [token.text for token in self.tokens if token.kind != "operator"]
        vocabulary = len(set(operators)) + len(set(operands))
        return (len(operators) + len(operands)) * math.log2(vocabulary) if vocabulary else 0.0


SCRIPT_REGEX = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\[\n])+/[a-z]*")
UNSAFE_C = {
    "gets": "cannot know how much room there is",
    "strcpy": "does not know how much room there is",
    "strcat": "does not know how much room there is",
    "sprintf": "does not know how much room there is",
    "vsprintf": "does not know how much room there is",
    "mktemp": "names a file that another process may create first",
    "tmpnam": "names a file that another process may create first",
}


# --- the file as a whole ----------------------------------------------------------------------------------------------

SUFFIXES = {
    "py": "python", "pyi": "python", "pyw": "python", "c": "c", "h": "c", "cc": "cpp", "cpp": "cpp", "cxx": "cpp",
    "hpp": "cpp", "hh": "cpp", "hxx": "cpp", "cs": "csharp", "java": "java", "js": "javascript", "mjs": "javascript",
    "cjs": "javascript", "jsx": "javascript", "ts": "typescript", "tsx": "typescript", "mts": "typescript", "go": "go",
    "rs": "rust",
}  # fmt: skip
NAMES = {
    "python3": "python", "py": "python", "c++": "cpp", "c#": "csharp", "cs": "csharp", "js": "javascript",
    "node": "javascript", "ts": "typescript", "golang": "go", "rs": "rust",
}  # fmt: skip
SIGNS = {
    "python": r"^\s*(?:(?:async\s+)?def\s+\w+\s*\(|class\s+\w+.*:\s*$|from\s+[\w.]+\s+import\s|import\s+[\w., ]+$|"
    r"(?:if|elif|for|while|with|try|except|else)\b.*:\s*(?:#.*)?$|@\w[\w.]*|return\b[^;]*$|print\(.*\)\s*$)",
    "c": r"^\s*(?:#\s*include\s*[<\"]|#\s*define\s|typedef\s|"
    r"(?:static\s+|const\s+|unsigned\s+)*(?:int|void|char|size_t|struct \w+)\s+\**\w+\s*\()",
    "cpp": r"^\s*(?:#\s*include\s*<\w+>|using\s+namespace\s|template\s*<|namespace\s+\w+|class\s+\w+.*\{|.*\bstd::)",
    "csharp": r"^\s*(?:using\s+[A-Z][\w.]*;|namespace\s+[A-Z][\w.]*|"
    r"(?:public|internal)\s+(?:sealed\s+|static\s+|partial\s+)*class\s)",
    "java": r"^\s*(?:package\s+[\w.]+;|import\s+(?:static\s+)?[\w.*]+;|@Override|(?:public|private|protected)\s+"
    r"(?:static\s+|final\s+|abstract\s+)*(?:class|interface|enum|void|int|String)\b)",
    "javascript": r"^\s*(?:(?:const|let|var)\s+[\w${\[].*=|(?:async\s+)?function\b|module\.exports|export\s|"
    r"import\s.*\sfrom\s+['\"]|.*=>\s*\{?\s*$|.*\brequire\(['\"])",
    "typescript": r"^\s*(?:(?:export\s+)?interface\s+\w+.*\{|(?:export\s+)?type\s+\w+.*=|"
    r".*[\w)]\s*:\s*(?:string|number|boolean|void|Promise<))",
    "go": r"^\s*(?:package\s+\w+$|func\s+(?:\(\w+\s+\*?\w+\)\s*)?\w+\(|import\s+(?:\(|\")|.*:=\s|"
    r"type\s+\w+\s+(?:struct|interface)\b)",
    "rust": r"^\s*(?:(?:pub(?:\(\w+\))?\s+)?fn\s+\w+|let\s+(?:mut\s+)?\w+.*;|use\s+[\w:]+(?:::|;)|impl\b.*\{|"
    r"#!?\[\w+|(?:pub\s+)?(?:struct|enum|trait)\s+\w+|.*\bprintln!)",
}


def detected(text: str, filename: str) -> str | None:
    """The language by the file's suffix, its first line, or the forms of its lines; None when nothing decides."""
    suffix = filename.rpartition(".")[2].lower() if "." in filename else ""
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    first = text.lstrip("\ufeff").partition("\n")[0]
    if first.startswith("#!"):
        return "python" if "python" in first else "javascript" if "node" in first else None
    if suffix and filename:
        return None
    lines = text.split("\n")[:2_000]
    scores = {name: sum(1 for line in lines if re.match(pattern, line)) for name, pattern in SIGNS.items()}
    if scores["typescript"] >= 2 and scores["javascript"]:
        scores["typescript"] += scores["javascript"]
    if scores["cpp"] >= 2 and scores["c"]:
        scores["cpp"] += scores["c"]
    best = max(scores, key=lambda name: (scores[name], name == "python"))
    return best if scores[best] else None


class Request:
    """The source, what it is called, and the limits that the agent's configuration sets."""

    __slots__ = ("filename", "ignored", "language", "limits", "text")

    def __init__(self, source: str) -> None:
        given: dict[str, object] = {"text": source}
        if source.lstrip("\ufeff \t\r\n").startswith("{"):
            try:
                value = json.loads(source.lstrip("\ufeff"))
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict) and "text" in value:
                given = value
        text = string_of(given, "text")
        self.text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        self.filename = string_of(given, "filename").replace("\\", "/")
        wanted = string_of(given, "language").strip().lower()
        self.language = NAMES.get(wanted, wanted) or detected(self.text, self.filename)
        config = agentfactory_sdk.config
        self.limits = {name: limit_of(config, name, default) for name, default in LIMITS_DEFAULT.items()}
        ignored = config.get("ignore", [])
        self.ignored = frozenset(map(str, ignored)) if isinstance(ignored, list) else frozenset()


def string_of(given: dict[str, object], name: str) -> str:
    value = given.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f'expected a string in "{name}", got {type(value).__name__}')
    return value.encode("utf-8", "replace").decode("utf-8")


def limit_of(config: dict[str, object], name: str, default: int) -> int:
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f'expected a whole number of at least 1 in "{name}", got {value!r}')
    return value


class PythonTokens:
    """One pass over the tokens, before the parser: which lines hold what, and whether something nests too deeply.

    In the sandbox the parser's stack is small, and its end cannot be caught: 115 brackets or 540 ``elif`` exhaust it.
    """

    def __init__(self, text: str) -> None:
        self.code: set[int] = set()
        self.comments: set[int] = set()
        self.too_deep: tuple[int, int] | None = None
        self.chains = [0]
        self.alternatives: dict[int, int] = {}
        quiet = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.ENCODING}
        fresh = True
        try:
            for token in tokenize.generate_tokens(io.StringIO(text).readline):
                if token.type == tokenize.COMMENT:
                    self.comments.add(token.start[0])
                elif token.type not in quiet:
                    self.code.update(range(token.start[0], token.end[0] + 1))
                    if self._deepest(token, fresh=fresh):
                        break
                    fresh = False
                elif token.type == tokenize.NEWLINE:
                    self.chains = [0]
                    fresh = True
        except (tokenize.TokenError, SyntaxError):
            pass
        if not self.code or self.too_deep is not None:
            self._by_line(text)

    def _by_line(self, text: str) -> None:
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                (self.comments if line.lstrip().startswith("#") else self.code).add(number)

    def _deepest(self, token: tokenize.TokenInfo, *, fresh: bool) -> bool:
        """Follow how deep the tree below the present statement is: brackets, chains of operators, runs of elif."""
        text = token.string
        if fresh:
            column = token.start[1]
            if text == "elif":
                self.alternatives[column] = self.alternatives.get(column, 0) + 1
            elif text != "else":
                self.alternatives.pop(column, None)
        if text in {"(", "[", "{"} and token.type == tokenize.OP:
            self.chains[-1] += 1
            self.chains.append(0)
        elif text in {")", "]", "}"} and token.type == tokenize.OP:
            if len(self.chains) > 1:
                self.chains.pop()
        elif text == ",":
            self.chains[-1] = 0
        elif text in NESTING_TOKENS:
            self.chains[-1] += 1
        depth = BRACKET_COST * len(self.chains) + sum(self.chains)
        if depth > PARSER_DEPTH_MAX or self.alternatives.get(token.start[1], 0) > ALTERNATIVES_MAX:
            self.too_deep = (token.start[0], token.start[1] + 1)
        return self.too_deep is not None


NESTING_TOKENS = word_set("+ - * / // % @ ** ~ << >> & | ^ . := not lambda if else await")
BRACKET_COST, PARSER_DEPTH_MAX, ALTERNATIVES_MAX = 6, 420, 300


def maintainability(volume: float, complexity: int, lines: int) -> float | None:
    """The maintainability index of Oman and Hagemeister (1992), from 0 to 100."""
    if lines == 0:
        return None
    index = 171.0 - 5.2 * math.log(max(volume, 1.0)) - 0.23 * complexity - 16.2 * math.log(lines)
    return round(min(100.0, max(0.0, index * 100.0 / 171.0)), 1)


def process(source: str) -> str:
    """Describe one source file; the output's shape is the template's ``output_schema``."""
    request = Request(source)
    lines = request.text.split("\n")
    findings = Findings(lines)
    total = len(lines) - (lines[-1] == "")
    blank = sum(1 for line in lines[:total] if not line.strip())
    file: PythonFile | BraceFile | None = None
    method = None
    code_lines, comment_lines = total - blank, 0
    if request.language == "python":
        tokens = PythonTokens(request.text)
        tree = parse_python(request.text, tokens, findings)
        code_lines, comment_lines = len(tokens.code), len(tokens.comments - tokens.code)
        if tree is not None:
            method = "syntax_tree"
            file = PythonFile(request.text, tree, findings, request.limits, request.filename)
    elif request.language in BRACE_LANGUAGES:
        method = "tokens"
        file = BraceFile(request.text, BRACE_LANGUAGES[request.language], findings, request.limits)
        code_lines, comment_lines = len(file.code_lines), len(file.comment_lines - file.code_lines)
    else:
        known = ", ".join(["python", *BRACE_LANGUAGES])
        findings.add(
            "unsupported-language", 1, 1, f"expected one of {known}, got {request.language or 'nothing recognised'}"
        )
    listed = [finding for finding in findings.sorted() if finding["code"] not in request.ignored]
    functions = file.functions() if file else []
    classes = file.classes() if file else []
    complexities = [int(str(function["complexity"])) for function in functions]
    overall = sum(complexities)
    if isinstance(file, PythonFile):
        overall = file.module.complexity()
    result = {
        "language": request.language,
        "filename": request.filename or None,
        "method": method,
        "functions": functions,
        "classes": classes,
        "findings": listed,
        "totals": {
            "lines": total,
            "code_lines": code_lines,
            "comment_lines": comment_lines,
            "blank_lines": max(0, total - code_lines - comment_lines),
            "functions": len(functions),
            "classes": len(classes),
            "complexity": overall,
            "complexity_mean": round(sum(complexities) / len(complexities), 2) if complexities else None,
            "complexity_max": max(complexities, default=None),
            "docstring_coverage": coverage([*functions, *classes]) if isinstance(file, PythonFile) else None,
            "maintainability": maintainability(file.volume(), overall, code_lines) if file else None,
            "errors": severity_count(listed, "error"),
            "warnings": severity_count(listed, "warning"),
            "infos": severity_count(listed, "info"),
        },
    }
    return json.dumps(result, ensure_ascii=False)


def severity_count(findings: list[dict[str, object]], severity: str) -> int:
    return sum(finding["severity"] == severity and not finding["suppressed"] for finding in findings)


def coverage(items: list[dict[str, object]]) -> float | None:
    """The share of public functions and classes that have a docstring."""
    public = [
        item for item in items if not any(part.startswith("_") for part in str(item["qualified_name"]).split("."))
    ]
    return round(sum(bool(item["docstring"]) for item in public) / len(public), 3) if public else None

"""The smallest modules that are right, and some that are not; nothing here computes anything."""

import wasmtime


def command(*, pages: int = 1, imports: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Return a preview 1 command that ends at once."""
    lines = "".join(f'(import "{module}" "{name}" (func))' for module, name in imports)
    return bytes(wasmtime.wat2wasm(f'(module {lines} (memory (export "memory") {pages}) (func (export "_start")))'))


def component(*exports: str) -> bytes:
    """Return a component whose exported functions do nothing: ``process`` for an agent, ``load`` too for an image."""
    lifted = "".join(f'(func (export "{name}") (canon lift (core func $i "nothing")))' for name in exports)
    text = f"""(component
      (core module $m (func (export "nothing")))
      (core instance $i (instantiate $m))
      {lifted})"""
    return bytes(wasmtime.wat2wasm(text))


def image() -> bytes:
    return component("process", "load")

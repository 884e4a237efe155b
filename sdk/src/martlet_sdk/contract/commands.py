"""Commands: ``(run) -> result``."""

from __future__ import annotations

import inspect

from martlet.specs import Arguments, Command, load

from .base import Broken, Skipped, require
from .kit import Kit


def check_takes_a_run(kit: Kit, spec: Command) -> None:
    """Its target is a function that takes the run."""
    _takes_run(kit.build(spec), "its target")


def check_plan(kit: Kit, spec: Command) -> None:
    """``plan``, where it has one, takes the run as well."""
    if spec.plan is not None:
        _takes_run(load(spec.plan), "its plan")


def _takes_run(function: object, what: str) -> None:
    require(callable(function), f"{what} is a {type(function).__name__}, which cannot be called.")
    try:
        inspect.signature(function).bind(object())  # type: ignore[arg-type]
    except TypeError as error:
        raise Broken(f"{what} cannot be called with the run as its one argument: {error}.") from error


def check_summary(kit: Kit, spec: Command) -> None:
    """It has one line that says what it does."""
    require(spec.summary.strip(), "it has no summary; `martlet --help` would show a bare name.")
    require("\n" not in spec.summary, "its summary has more than one line.")


def check_roles(kit: Kit, spec: Command) -> None:
    """The roles that it takes are roles of argument groups, and its ``positional`` is a flag of these."""
    if spec.raw:
        plain = not spec.roles and not spec.positional
        require(plain, "raw=True leaves its words unparsed, so it takes no roles and no positional.")
        return
    known = {role for _, group in kit.manager.specs(Arguments) for role in group.roles}
    unknown = [role for role in spec.roles if role not in known]
    require(unknown != list(spec.roles) or not unknown, f"no installed argument group has the role {unknown[:1]}.")
    if spec.positional:
        roles = {"base", *spec.roles}
        good = any(set(of) & roles for _, of in kit.flags.get(spec.positional, ()))
        require(good, f"positional={spec.positional!r} is no flag of its roles {spec.roles}.")
    if unknown:
        raise Skipped(f"no installed argument group has the role {unknown[0]!r}; is it misspelt?")


CHECKS = (check_takes_a_run, check_plan, check_summary, check_roles)

"""What ``martlet plugin new`` writes, as real plugins that are named ``my-name``.

``files``       one-file plugins, one a kind
``plugins``     ``plugin.py`` of a package, one a kind
``components``  the module that the package's plugin points to
``package``     the other files of a package

They are imported, linted and checked as they stand; ``scaffold.py`` replaces the name. A first line that begins with
``# mypy:`` is for us and is left out.
"""

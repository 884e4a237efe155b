"""Where the files of ``--external_plugins`` are imported, by ``martlet.external_plugins``. No name of its own."""

"""The subcommands of ``tinyseg``, one file each: ``add_parser`` says what it takes, ``run`` does it."""

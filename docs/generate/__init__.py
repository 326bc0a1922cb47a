"""Pages of the documentation that are made from the program itself at every build; `hook.py` adds them to the site."""

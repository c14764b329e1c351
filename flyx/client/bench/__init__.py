"""How fast this computer goes, and the path to another one."""

"""The error a user can cause and mend: what is wrong, where, what to do. Commands print it and exit with 2."""

import errno

from common.terminal import visible_name

EXIT_USER_ERROR = 2


class UserError(Exception):
    """`where` is a file:line, a dotted recipe key or a tensor name; `fix` says what to do about it."""

    def __init__(self, what: str, *, where: str = "", fix: str = ""):
        super().__init__(what)
        self.what, self.where, self.fix = what, where, fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {visible_name(self.where)}")
        if self.fix:
            lines.append(f"  to do: {self.fix}")
        return "\n".join(lines)


def from_os_error(error: OSError) -> UserError:
    """Explain a failing file operation (disk full, no permission, missing) in the terms above."""
    where = str(error.filename2 or error.filename or "")  # of a rename, its goal
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            "the disk is full", where=where, fix="free space there, or choose another place with --runs DIR"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        fix = "change its permissions; results go elsewhere with --runs DIR"
        return UserError("no permission to read or write here", where=where, fix=fix)
    if error.errno == errno.ENOENT and not where:
        return UserError("the working folder is gone", fix="cd to one that is there")
    if error.errno == errno.ENOENT:
        return UserError("no such file or folder", where=where, fix="check the path")
    in_the_way = error.errno in (errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENXIO)
    fix = "move it out of the way, and run the same command again" if in_the_way else ""
    return UserError(error.strerror or str(error), where=where, fix=fix)

"""The git repository that the hosts install from: the checkout as it lies there, and what a test adds to it."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.rig.commands import RigError, attempt, call
from tests.rig.gitserver import GitServer

_WHO = {
    "GIT_AUTHOR_NAME": "rig",
    "GIT_AUTHOR_EMAIL": "rig@localhost",
    "GIT_COMMITTER_NAME": "rig",
    "GIT_COMMITTER_EMAIL": "rig@localhost",
    # The person's own settings must not decide what a test sees.
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}
NAME = "rbee.git"


class Repository:
    """A bare copy of a checkout with one branch `main`: its HEAD, and on top what is not committed yet.

    Hosts read it at `url`, or at `private_url` with the `user` and `password` here; nobody can push over the network.
    """

    def __init__(self, folder: Path, *, checkout: Path, address: str) -> None:
        self.path = folder / NAME
        self.user = "rig-reader"
        self.password = secrets.token_urlsafe(12)
        self._copy(checkout)
        self._server = GitServer(address, folder, user=self.user, password=self.password)

    @property
    def url(self) -> str:
        """Where everybody can read it."""
        return f"{self._server.url}/{NAME}"

    @property
    def private_url(self) -> str:
        """Where the same repository asks for a user and a password."""
        return f"{self._server.url}/private/{NAME}"

    @property
    def private_url_with_password(self) -> str:
        """`private_url` with the credentials in it."""
        return self.private_url.replace("http://", f"http://{self.user}:{self.password}@")

    @property
    def requests(self) -> list[str]:
        """What was asked for so far, as "STATUS METHOD PATH"."""
        return list(self._server.requests)

    def head(self, branch: str = "main") -> str:
        """Give the commit that a branch points to. Raises RigError if there is no such branch."""
        return self._git("rev-parse", "--verify", f"{branch}^{{commit}}").strip()

    def commit(self, branch: str, files: Mapping[str, str | bytes | None], *, start: str | None = None) -> str:
        """Commit new contents of files (None deletes one) on a branch, and give the commit.

        A branch that does not exist begins at *start*, by default at `main`.
        """
        parent = self.head(start or (branch if self._has(branch) else "main"))
        with tempfile.TemporaryDirectory() as folder:
            # git removes from an index only where there is a work tree; an empty one will do.
            index = {"GIT_INDEX_FILE": f"{folder}/index", "GIT_WORK_TREE": folder}
            self._git("read-tree", parent, env=index)
            for path, content in files.items():
                if content is None:
                    self._git("update-index", "--force-remove", path, env=index)
                    continue
                known = self._git("ls-files", "--stage", "--", path, env=index).split()
                blob = self._git("hash-object", "-w", "--stdin", stdin=content).strip()
                mode = known[0] if known else "100644"
                self._git("update-index", "--add", "--cacheinfo", f"{mode},{blob},{path}", env=index)
            tree = self._git("write-tree", env=index).strip()
        return self._advance(branch, tree, parent, f"Change {', '.join(sorted(files))}")

    def branch(self, name: str, *, at: str = "main") -> None:
        """Make a branch, or move it."""
        self._git("update-ref", f"refs/heads/{name}", self.head(at))

    def tag(self, name: str, *, at: str = "main") -> None:
        """Make a tag, or move it."""
        self._git("update-ref", f"refs/tags/{name}", self.head(at))

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    def _copy(self, checkout: Path) -> None:
        if not (checkout / ".git").exists():
            raise RigError(f"{checkout} is no git checkout, so there is nothing to serve to the hosts")
        call("git", "init", "--quiet", "--bare", "--initial-branch=main", self.path)
        self._git("fetch", "--quiet", "--no-tags", str(checkout), "+HEAD:refs/heads/main")
        # The work tree is read into the copy's own index and objects: the checkout itself is not touched.
        with tempfile.TemporaryDirectory() as folder:
            tree = {"GIT_WORK_TREE": str(checkout), "GIT_INDEX_FILE": f"{folder}/index"}
            self._git("-C", str(checkout), "read-tree", "main", env=tree)
            self._git("-C", str(checkout), "add", "--all", ".", env=tree)
            now = self._git("write-tree", env=tree).strip()
        before = self._git("rev-parse", "main^{tree}").strip()
        if now != before:
            self._advance("main", now, self.head(), "Take over what is not committed yet")

    def _advance(self, branch: str, tree: str, parent: str, message: str) -> str:
        commit = self._git("commit-tree", tree, "-p", parent, "-m", message).strip()
        self._git("update-ref", f"refs/heads/{branch}", commit)
        return commit

    def _has(self, branch: str) -> bool:
        done = attempt("git", f"--git-dir={self.path}", "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}")
        return done.code == 0

    def _git(self, *argv: str, stdin: str | bytes = b"", env: Mapping[str, str] | None = None) -> str:
        return call("git", f"--git-dir={self.path}", *argv, stdin=stdin, env={**_WHO, **(env or {})})

"""The part of the Hub's HTTP interface that its Python clients use, one function an endpoint."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import yaml

from tests.hub.messages import Request, Response, file_response
from tests.hub.repos import KINDS, Blob, Commit, HubError, Repo, apply_operations, is_large, new_repo

if TYPE_CHECKING:
    from tests.hub.server import Hub


class Access(IntEnum):
    """What a token is good for; each level includes the ones before it."""

    NOBODY = 0  # no token
    STRANGER = 1  # another user: sees public repositories, opens no gated one
    READER = 2  # a read token of the user
    WRITER = 3  # a write token of the user


USER = "tester"
ORGANISATIONS = ("org",)
TOKENS = {"hf_test": Access.WRITER, "hf_read": Access.READER, "hf_stranger": Access.STRANGER}


# --- Who asks, and for what ---------------------------------------------------------------------------------------


def _access(request: Request) -> Access:
    if request.token is None:
        return Access.NOBODY
    if request.token not in TOKENS:
        raise HubError(401, "Invalid credentials in Authorization header")
    return TOKENS[request.token]


def _visible(hub: Hub, request: Request, kind: str, name: str) -> Repo:
    """A repository that the token may see; a private one looks missing to the others."""
    access = _access(request)
    repo = hub.repos.get((kind, name))
    if repo is None or (repo.private and access < Access.READER):
        raise HubError(404 if access else 401, "Repository not found", "RepoNotFound")
    return repo


def _readable(hub: Hub, request: Request, kind: str, name: str) -> Repo:
    """A repository whose files the token may read."""
    repo = _visible(hub, request, kind, name)
    if repo.gated and _access(request) < Access.READER:
        message = f"Access to {kind} {name} is restricted and you are not in the authorized list"
        raise HubError(403 if _access(request) else 401, message, "GatedRepo")
    return repo


def _writable(hub: Hub, request: Request, kind: str, name: str) -> Repo:
    repo = _visible(hub, request, kind, name)
    _check_write(request, name.partition("/")[0])
    return repo


def _check_write(request: Request, namespace: str) -> None:
    access = _access(request)
    if access is Access.NOBODY:
        raise HubError(401, "Invalid username or password.")
    if access < Access.WRITER:
        raise HubError(403, "This token may only read: use one with write access")
    if namespace not in (USER, *ORGANISATIONS):
        raise HubError(403, f"You don't have the rights to write under the namespace {namespace!r}")


# --- Accounts and repositories ------------------------------------------------------------------------------------


def who_am_i(hub: Hub, request: Request) -> Response:
    access = _access(request)
    if access is Access.NOBODY:
        raise HubError(401, "Invalid username or password.")
    name = "stranger" if access is Access.STRANGER else USER
    role = "write" if access is Access.WRITER else "read"
    organisations = [] if access is Access.STRANGER else [{"type": "org", "name": each} for each in ORGANISATIONS]
    token = {"displayName": "test", "role": role}
    user = {"type": "user", "name": name, "fullname": name, "orgs": organisations}
    return Response(content={**user, "auth": {"type": "access_token", "accessToken": token}})


def agent_harnesses(hub: Hub, request: Request) -> Response:
    """The client asks once per cache which programs may be driving it."""
    return Response(content={"standardEnvVars": [], "harnesses": {}})


def create_repo(hub: Hub, request: Request) -> Response:
    body = request.json()
    kind, name = _repo_of(body)
    _check_write(request, name.partition("/")[0])
    if kind not in KINDS:
        raise HubError(400, f"Invalid repo type {kind!r}")
    if kind == "space" and "sdk" not in body:
        raise HubError(400, "A Space needs an SDK")
    content = {"url": _url(hub, kind, name), "name": name, "id": name}
    with hub.lock:
        if (kind, name) in hub.repos:
            return Response(409, {**content, "error": f"You already created this {kind} repo"})
        private = body.get("visibility", "private" if body.get("private") else "public") == "private"
        hub.repos[kind, name] = new_repo(hub.blobs, kind, name, private, body.get("sdk"))
    return Response(content=content)


def delete_repo(hub: Hub, request: Request) -> Response:
    kind, name = _repo_of(request.json())
    _writable(hub, request, kind, name)
    with hub.lock:
        del hub.repos[kind, name]
    return Response(content={})


def change_settings(hub: Hub, request: Request, kind: str, name: str) -> Response:
    repo = _writable(hub, request, kind, name)
    body = request.json()
    if "visibility" in body or "private" in body:
        repo.private = body.get("visibility") == "private" or bool(body.get("private"))
    repo.gated = body.get("gated", repo.gated)
    return Response(content={"private": repo.private, "gated": repo.gated})


def _repo_of(body: dict[str, Any]) -> tuple[str, str]:
    return body.get("type") or "model", f"{body.get('organization') or USER}/{body['name']}"


def _url(hub: Hub, kind: str, name: str) -> str:
    return f"{hub.url}/{'' if kind == 'model' else kind + 's/'}{name}"


# --- Writing ------------------------------------------------------------------------------------------------------


def validate_card(hub: Hub, request: Request) -> Response:
    """The client sends every README.md here before a commit."""
    block = _metadata_block(request.json()["content"])
    if block is None:
        warning = {"message": "empty or missing yaml metadata in repo card"}
        return Response(content={"errors": [], "warnings": [warning]})
    errors = _metadata_errors(block)
    content = {"errors": [{"message": message} for message in errors], "warnings": []}
    return Response(400 if errors else 200, content)


def _metadata_block(card: str) -> str | None:
    found = re.match(r"\s*---\r?\n(.*?)\r?\n---\s*(\n|$)", card, re.DOTALL)
    return found and found[1]


def _metadata_errors(block: str) -> list[str]:
    try:
        metadata = yaml.safe_load(block)
    except yaml.YAMLError as error:
        return [f"YAML: {error}"]
    if not isinstance(metadata, dict):
        return ["The metadata must be an object"]
    lists = ("tags", "datasets", "metrics", "model-index")
    return [f'"{key}" must be an array' for key in lists if not isinstance(metadata.get(key, []), list)]


def before_upload(hub: Hub, request: Request, kind: str, name: str, revision: str) -> Response:
    """Tell for each file how it is to be sent, and which version of it the branch holds already."""
    held = _writable(hub, request, kind, name).head(revision).files

    def plan(file: dict[str, Any]) -> dict[str, Any]:
        path, size = file["path"], file["size"]
        mode = "lfs" if is_large(path, size, base64.b64decode(file.get("sample", ""))) else "regular"
        oid = held[path].etag if path in held else None
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    return Response(content={"files": [plan(file) for file in request.json()["files"]]})


def request_lfs_upload(hub: Hub, request: Request, kind: str, name: str) -> Response:
    """Tell where to send each LFS object; those already here need not be sent."""
    _writable(hub, request, kind, name)

    def plan(wanted: dict[str, Any]) -> dict[str, Any]:
        upload = {"href": f"{hub.storage_url}/storage/{wanted['oid']}"}
        actions = {} if hub.blobs.holds(wanted["oid"]) else {"actions": {"upload": upload}}
        return {"oid": wanted["oid"], "size": wanted["size"], **actions}

    objects = [plan(wanted) for wanted in request.json()["objects"]]
    content_type = {"Content-Type": "application/vnd.git-lfs+json"}
    return Response(content={"transfer": "basic", "objects": objects}, headers=content_type)


def upload_object(hub: Hub, request: Request, sha256: str) -> Response:
    """Receive an LFS object; the address is the permission, as with the signed addresses of the real storage."""
    hub.blobs.add(request.chunks, expected=sha256)
    return Response(content={})


def commit(hub: Hub, request: Request, kind: str, name: str, revision: str) -> Response:
    """Put one commit on a branch, or in a new pull request: the whole of it or nothing."""
    repo = _writable(hub, request, kind, name)
    header, *operations = request.json_lines()
    title, description = header["value"]["summary"], header["value"].get("description", "")
    with hub.lock:
        parent = repo.head(revision)
        if header["value"].get("parentCommit") not in (None, parent.oid):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        new = repo.add(parent, apply_operations(parent.files, operations, hub.blobs), title, description)
        url = _url(hub, kind, name)
        content = {"success": True, "commitOid": new.oid, "commitUrl": f"{url}/commit/{new.oid}", "hookOutput": ""}
        if request.query.get("create_pr") == "1":
            number = len(repo.pull_requests) + 1
            repo.pull_requests[f"refs/pr/{number}"] = new.oid
            content["pullRequestUrl"] = f"{url}/discussions/{number}"
        else:
            repo.branches[revision] = new.oid
    return Response(content=content)


def create_branch(hub: Hub, request: Request, kind: str, name: str, branch: str) -> Response:
    repo = _writable(hub, request, kind, name)
    return _point(hub, repo, repo.branches, branch, request.json().get("startingPoint", "main"))


def create_tag(hub: Hub, request: Request, kind: str, name: str, revision: str) -> Response:
    repo = _writable(hub, request, kind, name)
    return _point(hub, repo, repo.tags, request.json()["tag"], revision)


def _point(hub: Hub, repo: Repo, names: dict[str, str], new: str, revision: str) -> Response:
    with hub.lock:
        if new in names:
            raise HubError(409, f"Reference already exists: {new}")
        names[new] = repo.resolve(revision).oid
    return Response(content={})


def delete_branch(hub: Hub, request: Request, kind: str, name: str, branch: str) -> Response:
    repo = _writable(hub, request, kind, name)
    if branch == "main":
        raise HubError(403, "The branch main cannot be deleted")
    repo.head(branch)
    del repo.branches[branch]
    return Response(content={})


def delete_tag(hub: Hub, request: Request, kind: str, name: str, tag: str) -> Response:
    repo = _writable(hub, request, kind, name)
    if tag not in repo.tags:
        raise HubError(404, f"Invalid rev id: {tag}", "RevisionNotFound")
    del repo.tags[tag]
    return Response(content={})


# --- Reading ------------------------------------------------------------------------------------------------------


def repo_info(hub: Hub, request: Request, kind: str, name: str, revision: str = "main") -> Response:
    repo = _visible(hub, request, kind, name)
    at = repo.resolve(revision)
    content = {
        "_id": "0" * 24,
        "id": name,
        "author": name.partition("/")[0],
        "sha": at.oid,
        "createdAt": repo.history(at)[-1].date,
        "lastModified": at.date,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "cardData": _card_metadata(hub, at),
        "siblings": [_sibling(path, blob, "blobs" in request.query) for path, blob in sorted(at.files.items())],
    }
    if kind == "space":
        content["sdk"] = repo.sdk
    return Response(content=content, headers={"X-Repo-Commit": at.oid})


def _card_metadata(hub: Hub, at: Commit) -> dict[str, Any]:
    if "README.md" not in at.files:
        return {}
    card = hub.blobs.path(at.files["README.md"].sha256).read_text(encoding="utf-8")
    block = _metadata_block(card)
    return {} if block is None or _metadata_errors(block) else yaml.safe_load(block)


def _sibling(path: str, blob: Blob, with_blob: bool) -> dict[str, Any]:
    if not with_blob:
        return {"rfilename": path}
    entry = _file_entry(path, blob)
    lfs = {"lfs": {**entry["lfs"], "sha256": blob.sha256}} if blob.lfs else {}
    return {"rfilename": path, "size": blob.size, "blobId": blob.oid, **lfs}


def list_refs(hub: Hub, request: Request, kind: str, name: str) -> Response:
    repo = _visible(hub, request, kind, name)

    def listed(names: dict[str, str], prefix: str = "") -> list[dict[str, str]]:
        return [{"name": each, "ref": prefix + each, "targetCommit": oid} for each, oid in names.items()]

    content = {"branches": listed(repo.branches, "refs/heads/"), "tags": listed(repo.tags, "refs/tags/")}
    if "include_prs" in request.query:
        content["pullRequests"] = listed(repo.pull_requests)
    return Response(content={**content, "converts": []})


def list_commits(hub: Hub, request: Request, kind: str, name: str, revision: str) -> Response:
    repo = _visible(hub, request, kind, name)
    authors = [{"user": USER}]

    def listed(each: Commit) -> dict[str, Any]:
        return {
            "id": each.oid,
            "title": each.title,
            "message": each.description,
            "authors": authors,
            "date": each.date,
        }

    return Response(content=[listed(each) for each in repo.history(repo.resolve(revision))])


def list_tree(hub: Hub, request: Request, kind: str, name: str, revision: str, folder: str = "") -> Response:
    at = _visible(hub, request, kind, name).resolve(revision)
    prefix = folder.strip("/") + "/" if folder.strip("/") else ""
    deep = request.query.get("recursive", "").lower() in ("1", "true")
    entries = [
        entry
        for entry in _entries(at)
        if entry["path"].startswith(prefix) and (deep or "/" not in entry["path"].removeprefix(prefix))
    ]
    if prefix and not entries:
        raise HubError(404, f"{folder} does not exist on {revision}", "EntryNotFound", {"X-Repo-Commit": at.oid})
    return Response(content=entries, headers={"X-Repo-Commit": at.oid})


def paths_info(hub: Hub, request: Request, kind: str, name: str, revision: str) -> Response:
    at = _visible(hub, request, kind, name).resolve(revision)
    wanted = {path.strip("/") for path in request.values("paths")}
    return Response(content=[entry for entry in _entries(at) if entry["path"] in wanted])


def _entries(at: Commit) -> list[dict[str, Any]]:
    """Every folder and file of a tree."""
    folders = {path[: cut.start()] for path in at.files for cut in re.finditer("/", path)}
    listed = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in sorted(folders)]
    return listed + [_file_entry(path, blob) for path, blob in sorted(at.files.items())]


def _file_entry(path: str, blob: Blob) -> dict[str, Any]:
    entry = {"type": "file", "oid": blob.oid, "size": blob.size, "path": path}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}
    return entry


def resolve_file(hub: Hub, request: Request, kind: str, name: str, revision: str, path: str) -> Response:
    """A file of a commit. One in LFS is a redirect to the storage: what is known of it stands in the headers."""
    at = _readable(hub, request, kind, name).resolve(revision)
    headers = {"X-Repo-Commit": at.oid}
    if path not in at.files:
        raise HubError(404, f"Entry not found: {path}", "EntryNotFound", headers)
    blob = at.files[path]
    if not blob.lfs:
        return file_response(request, hub.blobs.path(blob.sha256), {**headers, "ETag": f'"{blob.oid}"'})
    headers["Location"] = f"{hub.storage_url}/storage/{blob.sha256}"
    headers["X-Linked-ETag"] = f'"{blob.sha256}"'
    headers["X-Linked-Size"] = str(blob.size)
    return Response(302, headers=headers)


def download_object(hub: Hub, request: Request, sha256: str) -> Response:
    if not hub.blobs.holds(sha256):
        raise HubError(404, f"No such object: {sha256}")
    return file_response(request, hub.blobs.path(sha256), {"ETag": f'"{sha256}"'})


# --- Which endpoint a request is for --------------------------------------------------------------------------------

API = r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)"
GIT = r"/(?:(?P<kind>datasets|spaces)/)?(?P<name>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"
ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Response]]] = [
    (method, re.compile(pattern), endpoint)
    for method, pattern, endpoint in [
        ("GET", r"/api/whoami-v2", who_am_i),
        ("GET", r"/api/agent-harnesses", agent_harnesses),
        ("POST", r"/api/repos/create", create_repo),
        ("DELETE", r"/api/repos/delete", delete_repo),
        ("POST", r"/api/validate-yaml", validate_card),
        ("GET", API, repo_info),
        ("PUT", rf"{API}/settings", change_settings),
        ("GET", rf"{API}/revision/{REVISION}", repo_info),
        ("GET", rf"{API}/refs", list_refs),
        ("GET", rf"{API}/commits/{REVISION}", list_commits),
        ("GET", rf"{API}/tree/{REVISION}(?:/(?P<folder>.*))?", list_tree),
        ("POST", rf"{API}/paths-info/{REVISION}", paths_info),
        ("POST", rf"{API}/preupload/{REVISION}", before_upload),
        ("POST", rf"{API}/commit/{REVISION}", commit),
        ("POST", rf"{API}/branch/(?P<branch>[^/]+)", create_branch),
        ("DELETE", rf"{API}/branch/(?P<branch>[^/]+)", delete_branch),
        ("POST", rf"{API}/tag/{REVISION}", create_tag),
        ("DELETE", rf"{API}/tag/(?P<tag>[^/]+)", delete_tag),
        ("POST", rf"{GIT}\.git/info/lfs/objects/batch", request_lfs_upload),
        ("PUT", r"/storage/(?P<sha256>[0-9a-f]{64})", upload_object),
        ("GET", r"/storage/(?P<sha256>[0-9a-f]{64})", download_object),
        ("GET", rf"{GIT}/resolve/{REVISION}/(?P<path>.+)", resolve_file),
    ]
]


def respond(hub: Hub, request: Request) -> Response:
    """Answer a request.

    Raises:
        HubError: the Hub refuses it, or the loopback Hub does not know it.
    """
    method = "GET" if request.method == "HEAD" else request.method
    for route_method, pattern, endpoint in ROUTES:
        if route_method == method and (found := pattern.fullmatch(request.path)):
            parts = {key: unquote(value) for key, value in found.groupdict().items() if value is not None}
            if "kind" in pattern.groupindex:
                parts["kind"] = parts.get("kind", "models").removesuffix("s")
            return endpoint(hub, request, **parts)
    raise HubError(501, f"The loopback Hub has no endpoint for {request.method} {request.path}")

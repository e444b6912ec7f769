"""The ``splatworks`` command."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from api.services.keys import DEFAULT_SCOPES, SCOPES, NewKey
from api.settings import Settings
from cli import build as building
from cli import keys as doors
from cli import local, photos, show
from cli.client import Client
from engine.errors import InputError, SplatError
from engine.options import PRESETS, STAGES

app = typer.Typer(help="Photos in, 3D Gaussian splats out.", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

keys = typer.Typer(help="Keys of people and programs that use the service from elsewhere.", no_args_is_help=True)
app.add_typer(keys, name="keys")

DataDir = Annotated[Path | None, typer.Option(help="Where the service keeps everything.", show_default="~/.splatworks")]
Server = Annotated[str, typer.Option(envvar="SPLATWORKS_SERVER", help="URL of a service; without it the one on this machine.")]
Key = Annotated[str, typer.Option("--key", envvar="SPLATWORKS_API_KEY", help="For a service that asks for a key; better set the variable.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default="8000")] = None,
    data_dir: DataDir = None,
) -> None:
    """Run the whole service on this machine until Ctrl-C."""
    with _explained():
        from cli.serve import serve as run  # noqa: PLC0415 (the other commands start faster without Celery and the database)

        run(_settings(host=host, port=port, data_dir=data_dir))


@app.command("migrate")
def bring_up_to_date(data_dir: DataDir = None) -> None:
    """Make the database's tables, or bring them to what this version needs; `serve` does so by itself."""
    with _explained():
        from cli import tables  # noqa: PLC0415 (as above)

        tables.bring_up_to_date(_settings(data_dir=data_dir))


@app.command()
def build(
    paths: Annotated[list[Path], typer.Argument(metavar="PHOTOS...", help="Folders and files.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the splat goes; its extension chooses the format.")] = Path(
        "scene.sog"
    ),
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(PRESETS)}.")] = "draft",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Override an option of the preset: train.steps=500. Repeatable.")
    ] = None,
    server: Server = "",
    key: Key = "",
    data_dir: DataDir = None,
) -> None:
    """Make a splat from photos or videos: upload, wait, download."""
    with _explained():
        request = building.Request(photos.collect(paths), output, preset, _options(overrides or []), photos.companions(paths))
        with _server(Where(server, key, data_dir)) as client:
            written = building.build(client, request)
        show.out.print(f"{written} ({written.stat().st_size:,} bytes)", markup=False)


@app.command()
def estimate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of photos, or an engine workspace with poses.")],
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(PRESETS)}.")] = "draft",
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="As for build. Repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON.")] = False,
) -> None:
    """Say how long a splat would take on this machine, and how much memory and disk; takes some seconds itself."""
    settings = [f"--set={each}" for each in overrides or []]
    # A process of its own: the command line never loads torch.
    command = [sys.executable, "-m", "engine", "estimate", str(folder), f"--preset={preset}", *settings, *(["--json"] if as_json else [])]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


@app.command()
def jobs(server: Server = "", key: Key = "", data_dir: DataDir = None) -> None:
    """List the latest jobs."""
    with _explained(), _known_server(Where(server, key, data_dir)) as client:
        show.jobs(client.get("/v1/jobs", limit=50)["items"])


@app.command()
def status(job_id: JobId, server: Server = "", key: Key = "", data_dir: DataDir = None) -> None:
    """Show one job and its stages."""
    with _explained(), _known_server(Where(server, key, data_dir)) as client:
        show.job(client.get(f"/v1/jobs/{job_id}"))


@app.command()
def cancel(job_id: JobId, server: Server = "", key: Key = "", data_dir: DataDir = None) -> None:
    """Stop a job."""
    with _explained(), _known_server(Where(server, key, data_dir)) as client:
        show.job(client.post(f"/v1/jobs/{job_id}/cancel", {}))


@app.command()
def retry(
    job_id: JobId,
    from_stage: Annotated[str, typer.Option("--from", help=f"Stage to begin with, of {', '.join(STAGES)}; else where it stopped.")] = "",
    server: Server = "",
    key: Key = "",
    data_dir: DataDir = None,
) -> None:
    """Run an ended job once more; what it finished is taken over."""
    with _explained(), _known_server(Where(server, key, data_dir)) as client:
        show.job(client.post(f"/v1/jobs/{job_id}/retry", {"from_stage": from_stage} if from_stage else {}))


@app.command()
def share(
    job_id: JobId,
    expires: Annotated[str, typer.Option(help="How long the link holds: 90d, 12h, or until 2027-01-31.", show_default="7d")] = "",
    revoke: Annotated[bool, typer.Option("--revoke", help="End all links of the job instead.")] = False,
    server: Server = "",
    key: Key = "",
    data_dir: DataDir = None,
) -> None:
    """Print a link by which anybody may see a finished splat, or end all there are."""
    with _explained(), _known_server(Where(server, key, data_dir)) as client:
        path = f"/v1/jobs/{job_id}/shares"
        if revoke:
            ended = [each["id"] for each in client.get(path)["items"] if each["revoked_at"] is None]
            for share_id in ended:
                client.ask("DELETE", f"{path}/{share_id}", {})
            show.out.print(f"{len(ended)} link{'' if len(ended) == 1 else 's'} ended", markup=False)
            return
        lasts_s = doors.lasts_s(expires) if expires else None
        made = client.post(path, {"expires_in_s": round(lasts_s)} if lasts_s else {})
        show.out.print(made["url"], markup=False, soft_wrap=True)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="Whose it is, or what it is for.")],
    scopes: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(SCOPES)}; admin holds all.")] = ",".join(DEFAULT_SCOPES),
    expires: Annotated[str, typer.Option(help="90d, 12h, 2027-01-31 or never.")] = "never",
    quota: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="jobs_per_day, active_jobs, storage_bytes (50GB), requests_per_minute. Repeatable."),
    ] = None,
    unless_any: Annotated[bool, typer.Option("--unless-any", help="Make none when there is one that holds.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    with _explained():
        wanted = NewKey(name, tuple(each.strip() for each in scopes.split(",")), doors.quotas(quota or []), doors.lasts_s(expires))
        if key := doors.create(_settings(data_dir=data_dir), wanted, unless_any=unless_any):
            show.out.print(key, markup=False)


@keys.command("list")
def list_keys(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False, data_dir: DataDir = None) -> None:
    """List all keys, newest first."""
    with _explained():
        listed = doors.listing(_settings(data_dir=data_dir))
        doors.print_json(listed) if as_json else doors.show_all(listed)


@keys.command("revoke")
def revoke_key(key: Annotated[str, typer.Argument(metavar="ID|PREFIX", help="As `keys list` shows it.")], data_dir: DataDir = None) -> None:
    """End a key and every browser's session opened with it, at once."""
    with _explained():
        show.out.print(f"sk_{doors.revoke(_settings(data_dir=data_dir), key)}… opens nothing any more", markup=False)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn an error into words and exit status 1."""
    try:
        yield
    except SplatError as error:
        show.error(error)
        raise typer.Exit(1) from error


def _settings(**given: object) -> Settings:
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" if each["loc"] else each["msg"] for each in error.errors())
        raise InputError("input.invalid_setting", "Invalid setting", said) from error


def _options(overrides: list[str]) -> dict[str, Any]:
    """Return ``["train.steps=500"]`` as ``{"train": {"steps": 500}}``; values are JSON where they can be, else text."""
    options: dict[str, Any] = {}
    for each in overrides:
        name, equals, text = each.partition("=")
        if not equals or not name:
            raise InputError("input.invalid_option", "Invalid option", f"--set {each!r} has no value", "Write --set train.steps=500.")
        *groups, last = name.split(".")
        inner = options
        for group in groups:
            inner = inner.setdefault(group, {})
        try:
            inner[last] = json.loads(text)
        except ValueError:
            inner[last] = text
    return options


@dataclass(frozen=True)
class Where:
    """The service that a command talks to: a URL, or the one on this machine; and the key to it."""

    url: str
    key: str
    data_dir: Path | None


@contextlib.contextmanager
def _server(where: Where) -> Iterator[Client]:
    """Yield the server named, or the one on this machine, started if need be."""
    if where.url:
        with Client(where.url, key=where.key) as client:
            yield client
        return
    with local.running(_settings(data_dir=where.data_dir).data_dir) as found, Client(found, key=where.key) as client:
        yield client


@contextlib.contextmanager
def _known_server(where: Where) -> Iterator[Client]:
    """Yield the server named, or the one that runs on this machine."""
    with Client(where.url or local.find(_settings(data_dir=where.data_dir).data_dir), key=where.key) as client:
        yield client


if __name__ == "__main__":
    app()

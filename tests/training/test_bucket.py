"""A run that is kept at an address: copied there and back, whatever stops it."""

from __future__ import annotations

import importlib.util
import json
import signal
import socket
import time
import uuid
from pathlib import Path

import command
import fsspec
import pytest

from aprm_jax.config import frozen, read_config_file
from aprm_jax.jobs import start
from aprm_jax.training import bucket, hosts
from aprm_jax.training.bucket import LIST, Bucket
from aprm_jax.training.lock import locked
from aprm_jax.training.workdir import WorkdirError

STORE = fsspec.filesystem("memory")


@pytest.fixture
def address():
    """An empty one in memory."""
    name = f"/{uuid.uuid4().hex}/run"
    yield f"memory:/{name}"
    if STORE.exists(name):
        STORE.rm(name, recursive=True)


@pytest.fixture
def machines(address, tmp_path):
    """machine(name): the run on that machine, read from the address."""

    def machine(name: str) -> Bucket:
        found = Bucket(address, tmp_path / name)
        found.pull()
        return found

    return machine


def _write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _read(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".bucket.json"
    }


def test_another_machine_goes_on_from_what_was_copied(machines):
    one = machines("one")
    _write(one.folder, config="{}", sft__checkpoints__10__array="old", log="a\n")
    one.push()
    _write(one.folder, sft__checkpoints__20__array="new", log="a\nb\n")
    (one.folder / "sft/checkpoints/10/array").unlink()
    one.push()
    two = machines("two")
    assert _read(two.folder) == _read(one.folder)
    assert set(_read(two.folder)) == {"config", "sft/checkpoints/20/array", "log"}
    _write(two.folder, log="a\nb\nc\n")
    two.push()
    again = machines("one")  # what the other one has done since
    assert _read(again.folder)["log"] == "a\nb\nc\n"


def test_a_machine_that_was_killed_goes_on_with_its_own_folder(machines):
    one = machines("one")
    _write(one.folder, log="a\n")
    one.push()
    _write(one.folder, log="a\nb\n", more="x")  # and killed: not copied
    again = machines("one")
    assert _read(again.folder) == {"log": "a\nb\n", "more": "x"}
    again.push()
    assert _read(machines("two").folder) == {"log": "a\nb\n", "more": "x"}


def test_only_what_has_changed_is_copied(machines, monkeypatch):
    one = machines("one")
    _write(one.folder, model="weights", log="a\n")
    one.push()
    copied = []
    put = type(one._files).put_file
    monkeypatch.setattr(
        type(one._files),
        "put_file",
        lambda self, here, there, **more: (
            copied.append(Path(here).name),
            put(self, here, there, **more),
        ),
    )
    one.push()
    assert copied == []
    _write(one.folder, log="a\nb\n")
    one.push()
    assert copied == ["log"]


@pytest.mark.parametrize("copied", [0, 1, 2, 3])
def test_a_copy_that_is_cut_short_leaves_what_was_there(machines, monkeypatch, copied):
    """Whichever of a new checkpoint's files had been copied, the old one is whole."""
    one = machines("one")
    _write(one.folder, ckpt__1__a="1a", ckpt__1__b="1b")
    one.push()
    for path in ("a", "b"):
        (one.folder / "ckpt/1" / path).unlink()
    _write(one.folder, ckpt__2__a="2a", ckpt__2__b="2b", ckpt__2__c="2c")
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "_put", _cut(Bucket._put, copied))
        patch.setattr(type(one._files), "pipe_file", _killed)
        with pytest.raises(KeyboardInterrupt):
            one.push()
    there = _read(machines("two").folder)
    assert there == {"ckpt/1/a": "1a", "ckpt/1/b": "1b"}
    machines("one").push()
    assert set(_read(machines("three").folder)) == {f"ckpt/2/{n}" for n in "abc"}


def _killed(*args, **more):
    raise KeyboardInterrupt


def _cut(method, calls: int):
    """The method, killed after so many calls."""
    left = iter(range(calls))

    def cut(*args, **more):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return method(*args, **more)

    return cut


@pytest.mark.parametrize("settled", [0, 1, 2])
def test_files_that_belong_together_are_changed_together(
    machines, monkeypatch, settled
):
    """Of a push that is cut short all or none is to be read, whichever was copied."""
    one = machines("one")
    _write(one.folder, config="old", fingerprint="of old")
    one.push()
    _write(one.folder, config="new!", fingerprint="of new!")
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "_put", _cut(Bucket._put, 1))
        with pytest.raises(KeyboardInterrupt):
            one.push()
    assert _read(machines("two").folder) == {"config": "old", "fingerprint": "of old"}

    store = type(one._files)
    with monkeypatch.context() as patch:
        patch.setattr(store, "cp_file", _cut(store.cp_file, settled))
        if settled < 2:
            with pytest.raises(KeyboardInterrupt):
                one.push()
        else:
            one.push()
    new = {"config": "new!", "fingerprint": "of new!"}
    three = machines("three")
    assert _read(three.folder) == new
    # Whoever goes on puts the rest in its place, and nothing stays beside it.
    _write(three.folder, more="x")
    three.push()
    assert _read(machines("four").folder) == new | {"more": "x"}
    assert not [path for path in STORE.find(one._root) if "/.new/" in path]


def test_a_seal_is_copied_before_the_log_that_grows(machines, monkeypatch):
    """What is logged and sealed while a copy is made leaves a seal of what is there."""
    one = machines("one")
    _write(one.folder, **{"metrics.jsonl": "1\n", ".metrics.jsonl.seal": "1 line"})
    put = Bucket._put

    def logs_meanwhile(self, name, place):
        done = put(self, name, place)
        if name.endswith("jsonl") or name.endswith("seal"):
            _write(
                one.folder,
                **{"metrics.jsonl": "1\n2\n", ".metrics.jsonl.seal": "2 lines"},
            )
        return done

    monkeypatch.setattr(Bucket, "_put", logs_meanwhile)
    one.push()
    found = _read(machines("two").folder)
    assert found == {"metrics.jsonl": "1\n2\n", ".metrics.jsonl.seal": "1 line"}


def test_a_checkpoint_that_is_dropped_while_it_is_copied_is_not_there(
    machines, monkeypatch
):
    one = machines("one")
    _write(one.folder, ckpt__1__data="x", **{"ckpt/1/MANIFEST.json": "{}"}, log="a")
    put = Bucket._put

    def drops(self, name, place):
        done = put(self, name, place)
        for path in (one.folder / "ckpt/1").glob("*"):
            path.unlink()
        return done

    monkeypatch.setattr(Bucket, "_put", drops)
    one.push()
    assert _read(machines("two").folder) == {"log": "a"}


def test_a_folder_that_was_emptied_is_read_again(machines):
    one = machines("one")
    _write(one.folder, log="a", model="m")
    one.push()
    for name in ("log", "model"):
        (one.folder / name).unlink()
    again = machines("one")
    assert _read(again.folder) == {"log": "a", "model": "m"}
    again.push()
    assert _read(machines("two").folder) == {"log": "a", "model": "m"}


def test_a_pull_that_was_cut_short_goes_on(machines, monkeypatch, tmp_path):
    one = machines("one")
    _write(one.folder, a="a", b="b")
    one.push()
    two = Bucket(one.address, tmp_path / "two")
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "_get", _cut(Bucket._get, 1))
        with pytest.raises(KeyboardInterrupt):
            two.pull()
    assert _read(machines("two").folder) == {"a": "a", "b": "b"}
    assert not list(tmp_path.glob("two.*"))  # nothing was set aside


def test_a_store_that_was_emptied_is_told(machines, address, caplog):
    one = machines("one")
    _write(one.folder, log="a")
    one.push()
    STORE.rm(one._root, recursive=True)
    again = machines("one")
    assert "holds no run any more" in caplog.text
    again.push()
    assert _read(machines("two").folder) == {"log": "a"}


def test_two_that_write_are_told(machines):
    one, two = machines("one"), machines("two")
    _write(one.folder, log="one")
    one.push()
    _write(two.folder, log="two")
    with pytest.raises(WorkdirError, match="another process has written there") as e:
        two.push()
    assert str(two.folder) in str(e.value)
    assert _read(machines("three").folder) == {"log": "one"}


def test_a_run_that_was_copied_there_by_hand_is_read(machines, address):
    root = address.removeprefix("memory:/")
    STORE.pipe_file(f"{root}/sft/done.json", b"{}")
    STORE.pipe_file(f"{root}/.lock", b"{}")
    one = machines("one")
    assert _read(one.folder) == {"sft/done.json": "{}"}
    STORE.pipe_file(f"{root}/sft/done.json", b'{"put": "right"}')
    one = machines("one")
    assert _read(one.folder) == {"sft/done.json": '{"put": "right"}'}
    _write(one.folder, more="x")
    one.push()
    assert set(_read(machines("two").folder)) == {"sft/done.json", "more"}


def test_locks_and_files_in_the_making_stay_here(machines):
    one = machines("one")
    names = (".lock", "a/.lock.exclusive", ".config.json.1-2.part")
    for name in (*names, "s/checkpoints/3.orbax-checkpoint-tmp/x", "kept"):
        (one.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (one.folder / name).write_text("x")
    one.push()
    assert set(_read(machines("two").folder)) == {"kept"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "is not what was written there"),
        ("{", "is not what was written there"),
        ('{"writer": "a", "files": {"../x": [1, 2]}}', "names '../x', elsewhere"),
        ('{"writer": "a", "files": {"/etc/x": [1, 2]}}', "names '/etc/x', elsewhere"),
        ('{"writer": "a", "files": {"gone": [1, 2]}}', "Cannot read memory://"),
    ],
)
def test_a_list_that_cannot_be_right_is_named(machines, address, text, said):
    root = address.removeprefix("memory:/")
    STORE.pipe_file(f"{root}/{LIST}", text.encode())
    with pytest.raises(WorkdirError) as caught:
        machines("one")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [("nonsense://x/run", "gs://, s3:// and az:// are known"), ("gs://x/run", "gcsfs")],
)
def test_an_address_that_nothing_opens_says_what_would(name, said, tmp_path):
    if said == "gcsfs" and importlib.util.find_spec(said):
        pytest.skip("gcsfs is installed")
    with pytest.raises(WorkdirError, match=said):
        Bucket(name, tmp_path)


def test_it_is_copied_while_it_is_worked_on_and_at_the_end(machines, address, tmp_path):
    kept = Bucket(address, tmp_path / "one")
    with kept.kept(every=0.01) as folder:
        _write(folder, before="x")
        time.sleep(0.1)
        assert machines("nobody").folder and not _read(machines("nobody").folder)
        assert bucket.of_this_run() == (kept,)
        kept.writes = True
        _write(folder, log="a")
        end = time.monotonic() + 20
        # A copy may be of the file while it is written: of its name alone.
        while (there := _read(machines("two").folder)).get("log") != "a":
            assert time.monotonic() < end, there
            time.sleep(0.02)
        _write(folder, log="ab")
    assert _read(machines("three").folder)["log"] == "ab"
    assert bucket.of_this_run() == ()


def test_hosts_compare_the_address_and_not_their_folders(
    address, tmp_path, monkeypatch
):
    quickstart = command.REPOSITORY / "configs/quickstart.py"
    config = frozen(read_config_file(quickstart, "runlocal"))
    said = {}
    monkeypatch.setattr(hosts, "count", lambda: 2)
    monkeypatch.setattr(hosts, "check_same", said.__setitem__)
    with Bucket(address, tmp_path).kept() as folder:
        start._meet(config, folder, [], False)
    assert said["--workdir"] == address


def test_a_host_that_follows_has_what_the_leader_has_and_nothing_else(machines):
    leader, other = machines("leader"), machines("other")
    _write(leader.folder, log="a", model="m")
    leader.push()
    other.follow()
    _write(other.folder, mine="x")
    assert other.hand_over(1).keys() == {"mine"}
    _write(leader.folder, log="ab")
    (leader.folder / "model").unlink()
    leader.push()
    other.follow()
    assert _read(other.folder) == _read(leader.folder) == {"log": "ab"}


def test_a_host_may_follow_into_a_folder_that_is_not_there(machines, address, tmp_path):
    leader = machines("leader")
    _write(leader.folder, log="a")
    leader.push()
    other = Bucket(address, tmp_path / "not/yet")
    other.follow()
    assert _read(other.folder) == {"log": "a"}


def test_what_a_host_hands_over_is_the_leaders_and_then_everybodys(machines):
    leader, other = machines("leader"), machines("other")
    _write(leader.folder, log="a")
    leader.push()
    other.follow()
    _write(other.folder, parts__one="1")
    files = other.hand_over(1)
    assert files.keys() == {"parts/one"}
    leader.take_over(1, files)
    leader.push()
    other.follow()
    third = machines("third")
    for machine in (leader, other, third):
        assert _read(machine.folder) == {"log": "a", "parts/one": "1"}
    assert not leader._files.find(leader._at(".hosts"))


def test_hosts_of_one_machine_have_folders_of_their_own(address, monkeypatch):
    folders = set()
    for index in ("0", "1", "2"):
        monkeypatch.setenv("JAX_PROCESS_ID", index)
        folders.add(Bucket(address).folder)
    monkeypatch.delenv("JAX_PROCESS_ID")
    assert len(folders) == 3 and Bucket(address).folder in folders


def test_what_was_never_copied_is_set_aside_where_another_went_on(machines, tmp_path):
    one, two = machines("one"), machines("two")
    _write(one.folder, log="a")
    one.push()
    two.pull()
    _write(two.folder, log="two")
    two.push()
    _write(one.folder, log="one", more="x")  # cut off: it was never copied
    again = machines("one")
    assert _read(again.folder) == {"log": "two"}
    [aside] = tmp_path.glob("one.*")
    assert _read(aside) == {"log": "one", "more": "x"}


def test_a_folder_that_a_run_works_in_is_left_alone(machines, address, tmp_path):
    one = machines("one")
    _write(one.folder, log="a")
    with (
        locked(one.folder),
        pytest.raises(WorkdirError, match="in use"),
        Bucket(address, one.folder).kept(),
    ):
        pass
    assert _read(one.folder) == {"log": "a"}


def test_what_stopped_a_run_is_told_before_what_the_bucket_refused(machines, address):
    other = machines("other")
    kept = Bucket(address, other.folder.with_name("one"))
    with pytest.raises(ZeroDivisionError), kept.kept() as folder:
        kept.writes = True
        _write(folder, log="one")
        _write(other.folder, log="other")
        other.push()
        raise ZeroDivisionError
    assert _read(machines("third").folder) == {"log": "other"}


def test_the_command_keeps_a_run_in_a_bucket(tmp_path):
    """On two machines: the second goes on where the first one was stopped."""
    store = tmp_path / "store/run"
    arguments = [
        command.QUICKSTART,
        command.CACHE,
        f"--workdir=file://{store}",
        "--config.stages=('solver:sft',)",
        "--config.sft.updates=400",
        "--config.checkpoint.every=5",
    ]

    def run(machine: str) -> command.Running:
        environment = {"XDG_CACHE_HOME": str(tmp_path / machine)}
        return command.start(tmp_path, arguments, f"{machine}.log", environment)

    one = run("one")
    one.wait_for("[solver] step 10/")
    one.send(signal.SIGTERM)
    code, output = one.end(120)
    assert code == 143, output
    assert json.loads((store / LIST).read_text())["files"]
    code, output = run("two").end()
    assert code == 0, output
    assert "going on from step" in output
    assert (store / "solver/done.json").exists()


@pytest.fixture
def gs(monkeypatch):
    """An address in an emulator of Google's store."""
    pytest.importorskip("gcsfs", reason="pip install gcsfs gcp-storage-emulator")
    server = pytest.importorskip(
        "gcp_storage_emulator.server", reason="pip install gcp-storage-emulator"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    emulator = server.create_server("127.0.0.1", port, True, "bucket")
    emulator.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    yield "gs://bucket/runs/one"
    emulator.stop()


def test_googles_store_holds_what_a_folder_does(gs, tmp_path):
    leader, other = Bucket(gs, tmp_path / "leader"), Bucket(gs, tmp_path / "other")
    leader.pull()
    _write(leader.folder, log="a", empty="", ckpt__1__data="x" * 100_000)
    leader.push()
    other.pull()
    assert _read(other.folder) == _read(leader.folder)
    (leader.folder / "ckpt/1/data").unlink()
    leader.push()
    other.follow()
    _write(other.folder, parts__one="1")
    leader.take_over(1, other.hand_over(1))
    leader.push()
    third = Bucket(gs, tmp_path / "third")
    third.pull()
    assert _read(third.folder) == {"log": "a", "empty": "", "parts/one": "1"}
    _write(other.folder, log="b")
    with pytest.raises(WorkdirError, match="another process has written there"):
        other.push()

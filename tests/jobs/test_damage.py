"""A file that is not what was written is refused, by name."""

import shutil

import command


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def _start(folder):
    code, output = command.call(
        folder, command.QUICKSTART, command.CACHE, "--workdir=run"
    )
    assert code == 1, output
    assert output.count("aprm_jax: error: ") == 1 and "Traceback" not in output
    return output


def test_a_damaged_checkpoint_is_refused(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "prm_static" / "done.json").unlink()
    [step] = (run / "prm_static" / "checkpoints").iterdir()
    [file, *_] = sorted(
        p for p in step.rglob("*") if p.is_file() and p.parent.name == "d"
    )
    _flip(file)
    output = _start(tmp_path)
    assert str(file.relative_to(tmp_path)) in output
    assert "checkpoint" in output


def test_a_damaged_model_is_refused(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "prm_static" / "done.json").unlink()
    shutil.rmtree(run / "prm_static" / "checkpoints")
    _flip(run / "prm_warmup" / "model" / "params.safetensors")
    assert "prm_warmup/model/params.safetensors" in _start(tmp_path)

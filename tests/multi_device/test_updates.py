"""SFT, PRM and joint game steps on eight devices are those on one."""


def test_every_mesh_gives_the_one_device_parameters(run_with_devices):
    done = run_with_devices("updates.py").splitlines()
    assert len(done) == 7 + 6 + 1

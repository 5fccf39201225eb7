"""Where parameters live on 8 devices, and that it changes nothing but that."""


def test_the_table(run_with_devices):
    run_with_devices("mesh.py", "table")


def test_a_mesh_that_does_not_match_is_named(run_with_devices):
    run_with_devices("mesh.py", "mismatches")


def test_every_mesh_gives_the_one_device_result(run_with_devices, tmp_path):
    run_with_devices("mesh.py", "results", tmp_path)


def test_the_cores_of_a_cpu_become_devices_where_batches_allow(run_with_devices):
    run_with_devices("cores.py")


def test_rows_are_scored_where_the_parameters_are(run_with_devices):
    run_with_devices("mesh.py", "scoring")


def test_a_samplers_language_head_is_split_over_its_mesh(run_with_devices):
    run_with_devices("mesh.py", "sampling")

import os
from pathlib import Path

import pytest
import started
from object_server import serving

import fusemix_core

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL and fork are POSIX")
def test_writers_that_are_killed_leave_an_object_store_that_the_next_completes(tmp_path):
    path = {"PYTHONPATH": str(Path(fusemix_core.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    with serving() as server:
        url = server.bucket("killed")
        environment = {**os.environ, **server.environment, **path}
        done = started.run(HERE / "object_child.py", tmp_path, url, env=environment)
        assert done.returncode == 0, done.stderr
        stores: dict[str, dict[str, bytes]] = {}
        for name, data in server.objects(url).items():
            way, _, rest = name.partition("/")
            stores.setdefault(way, {})[rest] = data
    whole = stores.pop("whole")
    assert len(whole) == 8, "7 shards of 100 items, and the mark"
    assert len(stores) == 7
    for way, found in stores.items():
        assert found == whole, way
    assert not list(tmp_path.rglob("pending/*")) or all(
        "other" in str(p) for p in tmp_path.rglob("pending/*")
    )

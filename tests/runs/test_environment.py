import getpass
import json
import platform
import socket
import sys
from importlib import metadata

from fusemix_core.runs.environment import environment
from fusemix_core.versions import installed_version


def test_environment_is_plain_data_with_versions():
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["packages"]["torch"] == metadata.version("torch")
    assert found["cpu"] and found["cpus"] >= 1
    assert set(found) == {
        "fusemix",
        "python",
        "platform",
        "cpu",
        "cpus",
        "gpus",
        "cuda",
        "packages",
        "plugins",
    }


def test_environment_names_neither_user_nor_host():
    text = json.dumps(environment())
    assert socket.gethostname() not in text.replace(platform.platform(), "")
    assert f"/{getpass.getuser()}/" not in text


def test_version_of_a_package_that_is_not_there():
    assert installed_version("no-such-distribution-here") is None

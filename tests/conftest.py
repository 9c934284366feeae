"""Session-wide strictness: eight CPU devices, strict dtypes and ranks, run-time checked array types."""

import os
import signal

from asccl_jax import process

# A shell that started the tests in its background has silenced Ctrl-C for them and all they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    # Eight devices on two busy cores may keep each other waiting longer than the 40 s after which XLA aborts.
    " --xla_cpu_collective_call_terminate_timeout_seconds=600"
)
os.environ["JAX_PLATFORMS"] = "cpu"
process.apply_xla_flags()

import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
install_import_hook("asccl_jax", "beartype.beartype")


@pytest.fixture(scope="session")
def bucket():
    """Address of an emulated bucket; one for all tests, as the libraries keep the first they see."""
    from tests.emulated_bucket import emulated_bucket

    with emulated_bucket() as address:
        yield address


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Folder of the programs that launched runs compile: all of a session, of every worker, share it."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    (folder / "compiled").mkdir(exist_ok=True)
    return folder / "compiled"


@pytest.fixture(scope="module")
def launch(compiled):
    """Starts `python -m asccl_jax.main` on a smoke recipe."""
    from tests.launched import Launcher

    return Launcher(compiled)


@pytest.fixture
def leave_nothing_running(launch):
    """Ends with a test what it has started; for all tests of a file."""
    yield
    launch.end()

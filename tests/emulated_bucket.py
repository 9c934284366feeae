"""A bucket of an emulator of Google Cloud Storage in this process, for gcsfs, TensorStore and processes of a test."""

import contextlib
import functools
import threading
from http.server import HTTPServer

import pytest

BUCKET = "emulated"


class Server(HTTPServer):
    """Takes one request at a time, as the emulator's storage wants it."""

    # Orbax asks for many files at once; whom a short queue turns away tries again after a second.
    request_queue_size = 256

    def handle_error(self, request, client_address):
        """Says nothing of a client that did not wait for its answer."""


def download_with_generation(download, request, response, storage, *args, **keywords):
    """Answers as the real service does, which names the generation of what it sends; TensorStore asks for that name."""
    download(request, response, storage, *args, **keywords)
    if response.status < 300:
        names = request.params["bucket_name"], request.params["object_id"]
        response["x-goog-generation"] = storage.get_file_obj(*names)["generation"]


@contextlib.contextmanager
def emulated_bucket():
    """Sets the environment such that `gs://emulated` is a bucket in memory, and yields that address."""
    pytest.importorskip("gcsfs")
    pytest.importorskip("gcp_storage_emulator")
    from gcp_storage_emulator.handlers import buckets, objects
    from gcp_storage_emulator.server import RequestHandler
    from gcp_storage_emulator.storage import Storage

    storage = Storage(use_memory_fs=True)
    buckets.create_bucket(BUCKET, storage)
    server = Server(("127.0.0.1", 0), functools.partial(RequestHandler, storage))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
                patch.setenv(name, f"http://127.0.0.1:{server.server_port}")
            # Nobody looks for credentials, which here would mean waiting for a server of Google's.
            patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
            patch.setenv("NO_GCE_CHECK", "true")
            patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
            patch.setattr(objects, "download", functools.partial(download_with_generation, objects.download))
            yield f"gs://{BUCKET}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""What the binary computes on where its CUDA library is missing: it starts and serves from the CPU,
unless a card was asked for."""
import os
import subprocess
import tempfile
import unittest

from server import Server

NOWHERE = "/nowhere/libkvasir_kernels_cuda.so"


class WithoutALibrary(unittest.TestCase):
    def setUp(self):
        os.environ["KVASIR_CUDA_LIBRARY"] = NOWHERE

    def tearDown(self):
        del os.environ["KVASIR_CUDA_LIBRARY"]

    def test_auto_serves_from_the_cpu(self):
        server = Server(None, "--backend", "auto")
        try:
            status, _, reply = server.request(
                "POST", "/v1/chat/completions",
                {"model": "default", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4})
            self.assertEqual(status, 200, reply)
            stats = server.request("GET", "/v1/stats")[2]
            self.assertTrue(stats["backend"].startswith("cpu-"), stats["backend"])
            self.assertEqual(stats["device"], "")
        finally:
            self.assertEqual(server.stop(), 0)
            server.close()

    def test_cuda_is_refused_by_every_command_that_computes(self):
        with tempfile.TemporaryDirectory(prefix="kvasir-e2e-") as data:
            for command in (["serve", "--port", "0"], ["ask", "why?"], ["ingest", __file__], ["stats"],
                            ["bench", "--lengths", "16"]):
                with self.subTest(command=command[0]):
                    run = subprocess.run(
                        [os.environ["KVASIR_BINARY"], "--data", data, "--backend", "cuda", *command],
                        capture_output=True, text=True, timeout=60)
                    self.assertEqual(run.returncode, 1, run.stderr)
                    self.assertIn(NOWHERE, run.stderr)
                    self.assertIn("--backend cpu", run.stderr)


if __name__ == "__main__":
    unittest.main()

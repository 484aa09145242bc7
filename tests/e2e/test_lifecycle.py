"""What happens to the server and to others when a client leaves, a key is wrong or SIGTERM comes."""
import http.client
import json
import signal
import threading
import time
import unittest
import urllib.parse

from server import Server

LONG = {"model": "default", "messages": [{"role": "user", "content": "Tell me a long story."}],
        "max_tokens": 600, "temperature": 1.0, "seed": 3, "stream": True}


def open_stream(server, body=None):
    """An open streaming reply; the connection is ours to read or to drop."""
    connection = http.client.HTTPConnection(urllib.parse.urlparse(server.url).netloc, timeout=60)
    connection.request("POST", "/v1/chat/completions", json.dumps(body or LONG),
                       {"Content-Type": "application/json"})
    return connection, connection.getresponse()


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


class Lifecycle(unittest.TestCase):
    def engine(self, server):
        return server.request("GET", "/v1/stats")[2]["engine"]

    def test_a_client_that_leaves_frees_its_blocks(self):
        server = Server()
        try:
            server.request("POST", "/v1/chat/completions", {**LONG, "stream": False, "max_tokens": 1})
            free = self.engine(server)["blocks_free"]
            for _ in range(5):
                connection, reply = open_stream(server)
                self.assertTrue(reply.read(64))
                connection.close()
            idle = wait_until(lambda: self.engine(server)["running"] == 0)
            self.assertTrue(idle, "requests of clients that left still run")
            self.assertEqual(self.engine(server)["blocks_free"], free)
        finally:
            self.assertEqual(server.stop(), 0)
            server.close()

    def test_sigterm_lets_running_answers_finish(self):
        server = Server()
        body = {**LONG, "max_tokens": 150, "chunk_cache": {"mode": "off"}}
        texts = []

        def read():
            connection, reply = open_stream(server, body)
            texts.append(reply.read().decode())
            connection.close()

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        self.assertTrue(wait_until(lambda: self.engine(server)["running"] == 3))
        server.process.send_signal(signal.SIGTERM)
        for reader in readers:
            reader.join(60)
        self.assertEqual(server.process.wait(60), 0)
        server.stop()
        server.close()
        self.assertEqual(len(texts), 3)
        for text in texts:
            self.assertTrue(text.rstrip().endswith("data: [DONE]"), text[-200:])

    def test_keys_guard_every_route_but_health(self):
        server = Server(None, "--api-key", "correct-horse")
        try:
            self.assertEqual(server.request("GET", "/health")[0], 200)
            for headers in ({}, {"Authorization": "Bearer wrong"}):
                status, _, reply = server.request("GET", "/v1/models", headers=headers)
                self.assertEqual(status, 401)
                self.assertIn("message", reply["error"])
            right = {"Authorization": "Bearer correct-horse"}
            self.assertEqual(server.request("GET", "/v1/models", headers=right)[0], 200)
        finally:
            self.assertEqual(server.stop(), 0)
            server.close()

    def test_one_data_folder_one_process(self):
        server = Server()
        try:
            with self.assertRaises(AssertionError) as caught:
                Server(server.data)
            self.assertIn("in use", str(caught.exception))
        finally:
            self.assertEqual(server.stop(), 0)
            server.close()


if __name__ == "__main__":
    unittest.main()

"""The main job over HTTP with the official OpenAI client, on the real default model."""
import tempfile
import unittest

import openai

from server import Server

PASSAGES = [
    ("Rainfall", "The weather station on Mount Halvor recorded 312 millimetres of rain in March. "
                 "April was drier, with 87 millimetres. The station has stood there since 1954."),
    ("Ferry", "The ferry to Lindholm leaves at 06:40, 09:15 and 17:30 every day except Sunday. "
              "Tickets cost 14 crowns and are sold on board. Dogs travel free of charge."),
    ("Library", "The town library lends out books for four weeks. Members may borrow twelve books "
                "at once. The reading room on the second floor closes at nine in the evening."),
    ("Bakery", "Ines opened her bakery in 1987 in an old fire station. She is known for rye bread "
               "with walnuts, and for closing whenever the herring are running."),
]
DOCUMENTS = [{"title": title, "text": text} for title, text in PASSAGES]
QUESTION = [{"role": "user", "content": "When does the first ferry to Lindholm leave?"}]


def account(reply):
    """The chunk_cache object and a check that its sum is the prompt, to the token."""
    cache = reply.model_extra["chunk_cache"]
    total = sum(cache[name] for name in ("prefix_tokens", "fused_tokens", "recomputed_tokens",
                                         "computed_tokens"))
    assert total == reply.usage.prompt_tokens, (cache, reply.usage)
    return cache


class OpenAiClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.client = openai.OpenAI(base_url=cls.server.url + "/v1", api_key="unused", max_retries=0)
        cls.model = cls.client.models.list().data[0].id

    @classmethod
    def tearDownClass(cls):
        status = cls.server.stop()
        cls.server.close()
        assert status == 0, status

    def ask(self, mode, documents=None, policy=None, **more):
        cache = {"mode": mode, "explain": True}
        if policy:
            cache["policy"] = policy
        return self.client.chat.completions.create(
            model=self.model, messages=QUESTION, max_tokens=16, temperature=0,
            extra_body={"documents": DOCUMENTS if documents is None else documents,
                        "chunk_cache": cache}, **more)

    def test_exact_computes_everything(self):
        reply = self.ask("exact")
        cache = account(reply)
        self.assertEqual(cache["computed_tokens"], reply.usage.prompt_tokens)
        self.assertEqual(reply.usage.prompt_tokens_details.cached_tokens, 0)
        self.assertTrue(reply.choices[0].message.content)

    def test_fused_reuses_chunks_in_any_order(self):
        self.ask("fused", policy="concat")
        reply = self.ask("fused", documents=DOCUMENTS[::-1], policy="concat")
        cache = account(reply)
        self.assertEqual([d["status"] for d in cache["documents"]], ["hit_pool"] * len(DOCUMENTS))
        self.assertGreater(cache["fused_tokens"], reply.usage.prompt_tokens // 2)
        self.assertEqual(reply.usage.prompt_tokens_details.cached_tokens,
                         cache["fused_tokens"] + cache["prefix_tokens"])

    def test_optimistic_repeats_the_exact_answer(self):
        exact = self.ask("exact")
        self.ask("fused", policy="concat")
        reply = self.ask("optimistic")
        self.assertEqual(reply.choices[0].message.content, exact.choices[0].message.content)
        self.assertEqual(account(reply)["computed_tokens"], reply.usage.prompt_tokens)
        self.assertEqual(reply.usage.prompt_tokens_details.cached_tokens, 0)

    def test_optimistic_streams_say_what_is_provisional(self):
        exact = self.ask("exact")
        self.ask("fused", policy="concat")
        stream = self.client.chat.completions.create(
            model=self.model, messages=QUESTION, max_tokens=16, temperature=0, stream=True,
            extra_body={"documents": DOCUMENTS,
                        "chunk_cache": {"mode": "optimistic", "provisional": True}})
        text, provisional, stands = "", "", None
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            extension = (chunk.model_extra or {}).get("chunk_cache") or {}
            provisional += extension.get("provisional", {}).get("content", "")
            stands = extension.get("correction", {}).get("characters", stands)
        self.assertEqual(text, exact.choices[0].message.content)
        self.assertTrue(provisional)
        self.assertTrue(text.startswith(provisional[:stands]), (provisional, stands))

    def test_link_charges_its_rows(self):
        cache = account(self.ask("fused", policy="link(8)"))
        self.assertEqual(cache["recomputed_tokens"], 8 * len(DOCUMENTS))

    def test_prefix_repeats_the_exact_answer(self):
        exact = self.ask("exact")
        self.ask("prefix")
        again = self.ask("prefix")
        self.assertGreater(account(again)["prefix_tokens"], 0)
        self.assertEqual(again.choices[0].message.content, exact.choices[0].message.content)

    def test_stream_equals_the_whole_answer(self):
        whole = self.ask("exact")
        text, last, usage = "", None, None
        for chunk in self.ask("exact", stream=True, stream_options={"include_usage": True}):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
                last = chunk.choices[0].finish_reason or last
            usage = chunk.usage or usage
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(last, whole.choices[0].finish_reason)
        self.assertEqual(usage.prompt_tokens, whole.usage.prompt_tokens)

    def test_plain_chat_needs_no_documents(self):
        reply = self.client.chat.completions.create(model=self.model, messages=QUESTION,
                                                    max_tokens=8, temperature=0)
        self.assertEqual(reply.choices[0].message.role, "assistant")
        account(reply)

    def test_sampled_answers_repeat_with_their_seed(self):
        answers = {self.client.chat.completions.create(
            model=self.model, messages=QUESTION, max_tokens=12, temperature=1.0, seed=7,
        ).choices[0].message.content for _ in range(3)}
        self.assertEqual(len(answers), 1)

    def test_bad_values_name_the_field(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.chat.completions.create(model=self.model, messages=QUESTION, temperature=9)
        self.assertEqual(caught.exception.param, "temperature")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.ask("sideways")
        self.assertIn("mode", caught.exception.param)
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.chat.completions.create(
                model=self.model, messages=[{"role": "user", "content": "word " * 20000}])
        self.assertIn("8192", str(caught.exception))

    def test_unknown_things_are_404(self):
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("no-such-model")
        with self.assertRaises(openai.NotFoundError):
            self.ask("fused", documents=[{"id": "no-such-document"}])

    def test_health_and_stats(self):
        for path in ("/health", "/readyz", "/version", "/v1/stats", "/metrics"):
            status, headers, _ = self.server.request("GET", path)
            self.assertEqual(status, 200, path)
            self.assertTrue(headers["x-request-id"], path)

    def test_hostile_bytes_do_not_end_the_server(self):
        for body in (b"", b"{", b"[]", b"\xff\xfe", b'{"messages":' + b"[" * 5000,
                     b'{"model":"m","messages":[{"role":"user","content":"\xed\xa0\x80"}]}'):
            status, _, reply = self.server.request("POST", "/v1/chat/completions", body)
            self.assertEqual(status, 400, body[:40])
            self.assertIn("error", reply)
        self.assertEqual(self.server.request("GET", "/health")[0], 200)


class Documents(unittest.TestCase):
    def test_documents_survive_a_restart(self):
        with tempfile.TemporaryDirectory(prefix="kvasir-e2e-") as data:
            first = Server(data)
            status, _, stored = first.request("POST", "/v1/documents", {
                "documents": [{"id": title.lower(), "title": title, "text": text}
                              for title, text in PASSAGES]})
            self.assertEqual(status, 200, stored)
            self.assertEqual(first.stop(), 0)
            first.close()

            second = Server(data)
            try:
                status, _, found = second.request(
                    "POST", "/v1/search", {"query": "how many books may I borrow?", "top_k": 2})
                self.assertEqual(status, 200, found)
                self.assertIn("library", str(found["data"][0]))
                client = openai.OpenAI(base_url=second.url + "/v1", api_key="unused")
                reply = client.chat.completions.create(
                    model=client.models.list().data[0].id, messages=QUESTION, max_tokens=8,
                    extra_body={"collection": "default", "top_k": 3,
                                "chunk_cache": {"mode": "fused", "explain": True}})
                statuses = {d["status"] for d in account(reply)["documents"]}
                self.assertEqual(statuses, {"hit_disk"})
                status, _, _ = second.request("DELETE", "/v1/documents/ferry")
                self.assertEqual(status, 200)
                self.assertEqual(second.request("GET", "/v1/documents/ferry")[0], 404)
                _, _, found = second.request("POST", "/v1/search", {"query": "ferry", "top_k": 9})
                self.assertNotIn("Lindholm", str(found))
            finally:
                self.assertEqual(second.stop(), 0)
                second.close()


if __name__ == "__main__":
    unittest.main()

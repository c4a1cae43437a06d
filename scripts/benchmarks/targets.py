#!/usr/bin/env python3
"""Figures beside their targets, as a Markdown table: targets.py --runs results.jsonl --pairs pairs.jsonl

A figure stands only where the run's trace was analysed and its counts equal the counting library's; else VOID
(see `Runs.counts`).
Ratios compare with heaptrack in the same runs. Times are medians over rounds.
"""
import argparse
import json
import statistics as st

MIB = 1 << 20


class Void(Exception):
    pass


def load(path):
    with open(path) as f:
        return [json.loads(line) for line in f]


def added_ns(pairs, shape, tool):
    rows = [r for r in pairs if r["kind"] == "pairs" and r["shape"] == shape and r["tool"] == tool]
    if not rows:
        raise Void("not run")
    for r in rows:
        if "void" in r:
            raise Void(r["void"])
    return st.median(r["added"] for r in rows)


class Runs:
    def __init__(self, rows):
        self.truth = {r["workload"]: r["processes"] for r in rows if r["tool"] == "truth"}
        self.joint = {r["workload"]: r["joint"] for r in rows if r["tool"] == "truth"}
        self.rows = [r for r in rows if r["tool"] != "truth"]

    def of(self, work, tool):
        rows = [r for r in self.rows if r["workload"] == work and r["tool"] == tool]
        if not rows:
            raise Void("not run")
        if any(r["rc"] or r["timeout"] for r in rows):
            raise Void("a run failed")
        return rows

    def events(self, work):
        return sum(p["allocs"] + p["frees"] for p in self.truth[work])

    def counts(self, work):
        """What memscope counted. In one process with libcount.so it must be the same to the last byte; in the timed run, which
        has another environment and addresses, complete and the same to one in a thousand."""
        if not self.joint[work]["equal"]:
            raise Void(f"counted {self.joint[work]}")
        counts = next(r["counts"] for r in self.of(work, "memscope") if "counts" in r)
        if "incomplete" in counts:
            raise Void(f"incomplete: {counts['incomplete']}")
        for key in ("allocs", "frees"):
            true = sum(p[key] for p in self.truth[work])
            if abs(counts.get(key, 0) - true) > true / 1000:
                raise Void(f"counted {counts.get(key)} {key} of {true}")
        return counts

    def added(self, work, tool, key):
        """Median over rounds of what a tool adds to the native runs of its round."""
        values = []
        for r in self.of(work, tool):
            native = [n for n in self.of(work, "native") if n["round"] == r["round"]]
            values.append(key(r) - st.median(map(key, native)))
        return st.median(values)


def wall(r):
    return r["wall"]


def cpu(r):
    return r["user"] + r["sys"]


def rss(r):
    return r["rss_max"]


def rss_budget(counts):
    """20 MiB, 64 bytes a stack node, 256 KiB a thread beyond the first eight, 64 bytes a frame of each thread's
    deepest stack."""
    threads = counts["threads"]
    return 20 * MIB + 64 * counts["nodes"] + (256 << 10) * max(0, threads - 8) + 64 * counts["depth"] * threads


def against_heaptrack(runs, work, key, limit):
    def figure():
        runs.counts(work)
        ours, theirs = runs.added(work, "memscope", key), runs.added(work, "heaptrack", key)
        return ours / theirs if theirs > 0 else float("inf"), limit, f"{ours / theirs:.3f} ({ours:.2f} s of {theirs:.2f} s)"
    return figure


def rows(runs, pairs):
    for shape, limit in (("depth 8", 17), ("depth 25", 23), ("depth 60", 32), ("depth 25, 4 leaves", 33)):
        def figure(shape=shape, limit=limit):
            value = added_ns(pairs, shape, "memscope")
            return value, limit, f"{value:.1f} ns"
        yield f"added CPU time of the program's threads per malloc+free pair, {shape}", f"<= {limit} ns", figure

    def depth_ratio():
        value = added_ns(pairs, "depth 25", "memscope") / added_ns(pairs, "depth 25", "heaptrack")
        return value, 1 / 8, f"{value:.3f}"
    yield "the same against heaptrack's, depth 25", "<= 1/8", depth_ratio

    def random_paths():
        value = added_ns(pairs, "depth 25, random paths", "memscope")
        theirs = added_ns(pairs, "depth 25, random paths", "heaptrack")
        return value / theirs, 1 / 2, f"{value / theirs:.3f} ({value:.0f} ns of {theirs:.0f} ns)"
    yield "the same against heaptrack's, random call paths at depth 25", "<= 1/2", random_paths

    def worst_case():
        value = added_ns(pairs, "depth 25, random paths", "memscope")
        full = added_ns(pairs, "depth 25, random paths", "full")
        return value / full, 1, f"{value / full:.3f} ({value:.0f} ns of {full:.0f} ns)"
    yield "worst case (nearly every frame is new) against our own full unwinding of every stack", "<= 1", worst_case

    def scaling():
        one, four = added_ns(pairs, "depth 25", "memscope"), added_ns(pairs, "depth 25, 4 threads", "memscope")
        return four / one, 1.2, f"{four / one:.2f}"
    yield "4 threads on 2 cores against 1 thread, per pair", "<= 1.2", scaling

    for work, limit, name in (("py", 1 / 4, "1/4"), ("perl", 1 / 4, "1/4"), ("cc1plus", 1 / 2, "1/2"), ("pyast", 1 / 2, "1/2")):
        if work in runs.truth:
            yield f"{work}: added wall time against heaptrack's", f"<= {name}", against_heaptrack(runs, work, wall, limit)
    for work in runs.truth:
        yield f"{work}: added CPU time of all threads and processes against heaptrack's", "<= 1/4", against_heaptrack(runs, work, cpu, 1 / 4)
    for work, limit in (("py", 0.6), ("cc1plus", 1.8), ("deep", 2.5), ("mt", 3.3)):
        if work in runs.truth:
            def size(work=work, limit=limit):
                runs.counts(work)
                value = st.median(r["bytes"] for r in runs.of(work, "memscope")) / runs.events(work)
                return value, limit, f"{value:.2f} bytes"
            yield f"{work}: trace size per event", f"<= {limit} bytes", size
    for work in runs.truth:
        def memory(work=work):
            counts = runs.counts(work)
            value, limit = runs.added(work, "memscope", rss), rss_budget(counts)
            return value, limit, f"{value / MIB:.1f} of {limit / MIB:.1f} MiB"
        yield f"{work}: peak RSS added to the program", "<= 20 MiB and what stacks and threads allow", memory

    def start():
        row = next((r for r in pairs if r["kind"] == "start"), None)
        if not row:
            raise Void("not run")
        return row["added_ms"], 1.0, f"{row['added_ms']:.2f} ms"
    yield "starting a program that does nothing", "<= 1 ms", start

    def sustained():
        row = next((r for r in pairs if r["kind"] == "sustained"), None)
        if not row or "void" in row:
            raise Void(row["void"] if row else "not run")
        return -row["rate"], -20e6, f"{row['rate'] / 1e6:.1f} M pairs/s"
    yield "pairs sustained into a compressed trace, wall time", ">= 20 M/s", sustained

    def analysis():
        row = next((r for r in pairs if r["kind"] == "sustained"), None)
        if not row or "void" in row:
            raise Void(row["void"] if row else "not run")
        value = row["events"] / row["analysis_s"]
        return -value, -20e6, f"{value / 1e6:.1f} M events/s"
    yield "analysis of that trace, all cores", ">= 20 M/s", analysis

    for what, key in (("reader alone over that trace", "reader_one_core_s"), ("whole analysis of that trace", "analysis_one_core_s")):
        def on_one_core(key=key):
            row = next((r for r in pairs if r["kind"] == "sustained"), None)
            if not row or "void" in row:
                raise Void(row["void"] if row else "not run")
            value = row["events"] / row[key]
            return -value, -20e6, f"{value / 1e6:.1f} M events/s"
        yield f"{what}, one core, CPU time", ">= 20 M/s", on_one_core

    for work in runs.truth:
        def alone(work=work):
            runs.counts(work)
            ran = next(r["reader_one_core"] for r in runs.of(work, "memscope") if "reader_one_core" in r)
            if "error" in ran or ran["rc"] or ran["timeout"]:
                raise Void(ran.get("error", "it failed"))
            value = ran["events"] / cpu(ran)
            return -value, -10e6, f"{value / 1e6:.1f} M events/s"
        yield f"{work}: reader alone (pairing and sums; the largest trace), one core, CPU time", ">= 10 M/s", alone

    for work in runs.truth:
        def one_core(work=work):
            counts = runs.counts(work)
            ran = next(r["analysis_one_core"] for r in runs.of(work, "memscope") if "analysis_one_core" in r)
            if ran["rc"] or ran["timeout"]:
                raise Void("it failed")
            value = (counts["allocs"] + counts["frees"]) / cpu(ran)
            return -value, -10e6, f"{value / 1e6:.1f} M events/s"
        yield f"{work}: whole analysis (symbols and JSON too), one core, CPU time", ">= 10 M/s", one_core


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--runs", required=True)
    ap.add_argument("--pairs", required=True)
    args = ap.parse_args()
    print("\n### Figures and targets\n\n| what | target | figure | |\n|---|--:|--:|---|")
    for what, target, figure in rows(Runs(load(args.runs)), load(args.pairs)):
        try:
            value, limit, text = figure()
            print(f"| {what} | {target} | {text} | {'met' if value <= limit else 'missed'} |")
        except (Void, KeyError, StopIteration) as why:
            print(f"| {what} | {target} | VOID | {why} |")


if __name__ == "__main__":
    main()

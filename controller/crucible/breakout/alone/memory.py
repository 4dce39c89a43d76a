"""Takes memory without end: first as much as a small plugin may, then four times what there is for it."""

kept = [b"x" * (1 << 20) for _ in range(8)]
print("allowed", flush=True)
kept += [b"x" * (1 << 20) for _ in range(192)]
print(f"took {len(kept)} MiB", flush=True)

"""The student's side: everything here runs in the zygote or in a jailed worker, and holds no oracle, seed or solution."""

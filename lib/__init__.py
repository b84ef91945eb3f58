"""Nouns: importable, testable modules that know no paths of their own and never open params.yaml."""

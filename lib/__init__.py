"""Nouns: importable, testable modules. Callers pass the project's paths in; none opens params.yaml."""

"""Tests of editors."""

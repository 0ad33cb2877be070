"""Language runtimes as components: what they are built from, and the build."""

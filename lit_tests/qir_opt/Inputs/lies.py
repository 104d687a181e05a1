from qdqc.pipeline.pass_ import Pass


class Lies(Pass):
    """Change something and deny it."""

    name = "lies"

    def run(self, graph, ctx):
        graph.module.header["touched"] = True
        return 0

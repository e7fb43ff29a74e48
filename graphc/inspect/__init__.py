"""Looking at models, plans and results: plain functions that return data or text. The command line is built on them.

    from graphc.inspect.summary import summarize            # nodes, shapes, parameters, FLOPs
    from graphc.inspect.stages import graph_after, stage_text    # the graph after a pass, the plan, the kernels
    from graphc.inspect.ledger import kernels               # which nodes of the model each kernel computes
    from graphc.inspect.compare import compare, widen       # errors against a float64 evaluation
    from graphc.inspect.samples import random_inputs
"""

"""Engines run the graphs of a bundle: one module per engine, one table of engines, one table of file formats."""

from probrt.runtime.engines.graph import Arrays, EngineModule, Graph, Outputs
from probrt.runtime.engines.table import BUILT_IN, GROUP, Engine, engines

__all__ = ["BUILT_IN", "GROUP", "Arrays", "Engine", "EngineModule", "Graph", "Outputs", "engines"]

"""The `fusemix` application with the commands of core."""

from __future__ import annotations

from fusemix_core.cli import (
    align,
    bench,
    cache,
    clean,
    compare,
    data,
    dedup,
    doctor,
    encode,
    encoders,
    evaluate,
    export,
    extend,
    fuse,
    generate,
    generators,
    index,
    new_plugin,
    plugins,
    predict,
    rank,
    recipes,
    rerank,
    score,
    search,
    select,
)
from fusemix_core.cli.base import new_app

app = new_app()

START, LOOK, PREPARE, EXTEND = "Start", "Look and compare", "Prepare and keep", "Extend"
"""The panels of `fusemix --help`, in the order of what one does first. A plugin's commands are in
"Commands", or in one of these (`app.command(…, rich_help_panel="Start")`)."""

app.command("align", rich_help_panel=START)(align.align)
app.command("search", rich_help_panel=START)(search.search)
app.command("eval", rich_help_panel=START)(evaluate.evaluate)
app.command("fuse", rich_help_panel=START)(fuse.fuse)
app.command("predict", rich_help_panel=START)(predict.predict)
app.command("explain", rich_help_panel=START)(predict.explain)
app.command("extend", rich_help_panel=START)(extend.extend)
app.command("rerank", rich_help_panel=START)(rerank.rerank)
app.command("generate", cls=generate.GenerateCommand, rich_help_panel=START)(generate.generate)
app.add_typer(encoders.app, name="encoders", rich_help_panel=LOOK)
app.add_typer(generators.app, name="generators", rich_help_panel=LOOK)
app.add_typer(recipes.app, name="recipes", rich_help_panel=LOOK)
app.command("rank", rich_help_panel=LOOK)(rank.rank)
app.command("bench", rich_help_panel=LOOK)(bench.bench)
app.command("doctor", rich_help_panel=LOOK)(doctor.doctor)
app.add_typer(index.app, name="index", rich_help_panel=PREPARE)
app.add_typer(data.app, name="data", rich_help_panel=PREPARE)
app.command("score", rich_help_panel=LOOK)(score.score)
app.command("compare", rich_help_panel=LOOK)(compare.compare)
app.command("clean", rich_help_panel=PREPARE)(clean.clean)
app.command("dedup", rich_help_panel=PREPARE)(dedup.dedup)
app.command("encode", rich_help_panel=PREPARE)(encode.encode)
app.command("embed", hidden=True)(encode.encode)
app.command("export", rich_help_panel=PREPARE)(export.export)
app.command("select", rich_help_panel=PREPARE)(select.select)
app.add_typer(cache.app, name="cache", rich_help_panel=PREPARE)
app.command("plugins", rich_help_panel=EXTEND)(plugins.plugins)
app.command("new-plugin", rich_help_panel=EXTEND)(new_plugin.new_plugin)

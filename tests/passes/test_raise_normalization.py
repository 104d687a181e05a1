"""raise-normalization: every spelling is one node with the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

LAYER = {
    "torch": "m=mean(x) d=sub(x,m) p=pow(d,two) v=mean(p) e=add(v,eps) s=sqrt(e) n=div(d,s) "
    "g=mul(n,gamma) y=add(g,beta)",
    "square": "m=mean(x) d=sub(x,m) p=mul(d,d) v=mean(p) e=add(eps,v) s=sqrt(e) n=div(d,s) "
    "g=mul(gamma,n) y=add(beta,g)",
    "reciprocal": "m=mean(x) d=sub(x,m) p=mul(d,d) v=mean(p) e=add(v,eps) s=sqrt(e) "
    "r=reciprocal(s) n=mul(d,r) g=mul(n,gamma) y=add(g,beta)",
    "one over": "m=mean(x) d=sub(x,m) p=mul(d,d) v=mean(p) e=add(v,eps) s=sqrt(e) "
    "r=div(one,s) n=mul(r,d) g=mul(n,gamma) y=add(g,beta)",
    "power": "m=mean(x) d=sub(x,m) p=pow(d,two) v=mean(p) e=add(v,eps) r=pow(e,less) "
    "n=mul(d,r) g=mul(n,gamma) y=add(g,beta)",
    "power of a half": "m=mean(x) d=sub(x,m) p=pow(d,two) v=mean(p) e=add(v,eps) r=pow(e,half) "
    "n=div(d,r) g=mul(n,gamma) y=add(g,beta)",
    "plain": "m=mean(x) d=sub(x,m) p=pow(d,two) v=mean(p) e=add(v,eps) s=sqrt(e) y=div(d,s)",
    "scale alone": "m=mean(x) d=sub(x,m) p=mul(d,d) v=mean(p) e=add(v,eps) s=sqrt(e) "
    "n=div(d,s) y=mul(n,gamma)",
    "row": "m=mean(x) d=sub(x,m) p=mul(d,d) v=mean(p) e=add(v,eps) s=sqrt(e) n=div(d,s) "
    "g=mul(n,row) y=add(g,two)",
}
RMS = {
    "root": "p=mul(x,x) v=mean(p) e=add(v,eps) s=sqrt(e) n=div(x,s) y=mul(n,gamma)",
    "llama": "p=pow(x,two) v=mean(p) e=add(v,eps) s=sqrt(e) r=reciprocal(s) n=mul(x,r) "
    "y=mul(gamma,n)",
    "plain": "p=mul(x,x) v=mean(p) e=add(v,eps) r=pow(e,less) y=mul(x,r)",
}
LEFT_ALONE = {
    "other axes": "m=mean(x) d=sub(x,m) p=mul(d,d) v=first(p) e=add(v,eps) s=sqrt(e) y=div(d,s)",
    "another mean": "z=abs(x) m=mean(z) d=sub(x,m) p=mul(d,d) v=mean(p) e=add(v,eps) s=sqrt(e) "
    "y=div(d,s)",
    "first axis": "m=first(x) d=sub(x,m) p=mul(d,d) v=first(p) e=add(v,eps) s=sqrt(e) y=div(d,s)",
    "fourth power": "p=pow(x,four) v=mean(p) e=add(v,eps) s=sqrt(e) y=div(x,s)",
    "another product": "z=mul(x,two) p=mul(x,z) v=mean(p) e=add(v,eps) s=sqrt(e) y=div(x,s)",
    "no root": "p=mul(x,x) v=mean(p) e=add(v,eps) y=div(x,e)",
    "no epsilon": "p=mul(x,x) v=mean(p) s=sqrt(v) y=div(x,s)",
    "squares of another": "z=abs(x) p=mul(z,z) v=mean(p) e=add(v,eps) s=sqrt(e) y=div(x,s)",
}
NARROW = {"mean": "reduce_mean", "first": "reduce_mean"}


def module(steps: str, shape: str = "2,3,8", outputs: str = "%y") -> str:
    dims = shape.split(",")
    narrow = {"mean": ",".join([*dims[:-1], "1"]), "first": ",".join(["1", *dims[1:]])}
    axes = {"mean": "{axes = [-1]}", "first": "{axes = [0]}"}
    shapes: dict[str, str] = {}
    lines: list[str] = []
    for step in steps.split():
        name, _, call = step.partition("=")
        op, _, operands = call.rstrip(")").partition("(")
        reads = [shapes.get(o, shape) for o in operands.split(",") if o in shapes or o == "x"]
        shapes[name] = narrow[op] if op in narrow else max(reads, key=lambda s: s == shape)
        values = ", ".join(f"%{v}" for v in operands.split(","))
        spelt = f"{NARROW.get(op, op)}({values}) {axes.get(op, '')}".rstrip()
        lines.append(f'    %{name} = {spelt} : f32[{shapes[name]}] loc("/{name}")')
    numbers = ", ".join(str(0.5 + 0.25 * i) for i in range(8))
    body = "\n".join(lines)
    return f"""module @m {{opsets = {{"" = 17}}}} {{
  const %two : f32[] = dense[2]
  const %four : f32[] = dense[4]
  const %one : f32[] = dense[1]
  const %half : f32[] = dense[0.5]
  const %less : f32[] = dense[-0.5]
  const %eps : f32[1] = dense[0.001]
  const %gamma : f32[8] = dense[{numbers}]
  const %beta : f32[1,1,8] = dense[{numbers}]
  const %row : f32[1,8] = dense[{numbers}]
  graph (%x : f32[{shape}]) -> ({outputs}) {{
{body}
  }}
}}"""


PASSES = "raise-normalization,eliminate-dead-code"


@pytest.mark.parametrize("shape", ["2,3,8", "N,T,8"])
@pytest.mark.parametrize("steps", LAYER.values(), ids=LAYER)
def test_layer(rewritten: Any, all_locations: Any, steps: str, shape: str) -> None:
    done = rewritten(module(steps, shape), PASSES)
    assert done.ops == ["layer_normalization"]
    op = done.node("y").op
    assert (op.axis, round(op.epsilon, 6)) == (-1, 0.001)
    assert all_locations(done.after) == all_locations(done.before)


@pytest.mark.parametrize("shape", ["2,3,8", "N,T,8"])
@pytest.mark.parametrize("steps", RMS.values(), ids=RMS)
def test_rms(rewritten: Any, steps: str, shape: str) -> None:
    done = rewritten(module(steps, shape), PASSES)
    assert done.ops == ["rms_normalization"]


@pytest.mark.parametrize("steps", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_only_looks_alike(rewritten: Any, steps: str) -> None:
    done = rewritten(module(steps), PASSES)
    assert not {"layer_normalization", "rms_normalization"} & set(done.ops)


@pytest.mark.parametrize("read", ["m", "d", "p", "v", "e", "s"])
def test_an_inner_value_that_is_read_elsewhere(rewritten: Any, read: str) -> None:
    done = rewritten(module(LAYER["torch"], outputs=f"%y, %{read}"), PASSES)
    assert "layer_normalization" not in done.ops
    done = rewritten(module(f"{LAYER['torch']} z=abs({read})", outputs="%y, %z"), PASSES)
    assert "layer_normalization" not in done.ops


def test_the_plain_form_that_is_read_elsewhere_keeps_its_scale(rewritten: Any) -> None:
    done = rewritten(module(LAYER["torch"], outputs="%y, %n"), PASSES)
    assert done.ops == ["layer_normalization", "mul", "add"]


def test_an_unknown_size_is_left(rewritten: Any) -> None:
    done = rewritten(module(LAYER["plain"], "2,3,D"), PASSES)
    assert "layer_normalization" not in done.ops


@pytest.mark.parametrize("factor", ["f32[3,1]", "f32[3,8]", "f32[2,1,1]"])
def test_a_factor_of_another_shape_stays(rewritten: Any, factor: str) -> None:
    text = module(LAYER["scale alone"]).replace(
        "const %two", f"const %f : {factor} = random\n  const %two"
    )
    done = rewritten(text.replace("mul(%n, %gamma)", "mul(%n, %f)"), PASSES)
    assert done.ops == ["layer_normalization", "mul"]


IMAGES = """module @m {opsets = {"" = 18}} {
  const %eps : f32[] = dense[0.001]
  const %c : f32[4,1,1] = random
  const %b : f32[1,4,1,1] = random
  graph (%x : f32[SHAPE]) -> (%y) {
    %m = reduce_mean(%x) {axes = [2, 3]} : f32[N,4,1,1]
    %d = sub(%x, %m) : f32[SHAPE]
    %p = mul(%d, %d) : f32[SHAPE]
    %v = reduce_mean(%p) {axes = [3, 2]} : f32[N,4,1,1]
    %e = add(%v, %eps) : f32[N,4,1,1]
    %s = sqrt(%e) : f32[N,4,1,1]
    %n = div(%d, %s) : f32[SHAPE]
    %g = mul(%n, %c) : f32[SHAPE]
    %y = add(%g, %b) : f32[SHAPE]
  }
}"""


@pytest.mark.parametrize("shape", ["2,4,5,6", "N,4,H,W"])
def test_instance(rewritten: Any, shape: str) -> None:
    text = IMAGES.replace("SHAPE", shape)
    done = rewritten(text if "N" in shape else text.replace("N,4", "2,4"), PASSES)
    assert done.ops == ["instance_normalization"]
    np.testing.assert_allclose(
        done.node("y").need("scale").data.array(),
        done.before.constants["c"].data.array().reshape(-1),
    )


GROUPS = """module @m {opsets = {"" = 18}} {
  const %split : i64[3] = dense[0, 2, -1]
  const %whole : i64[4] = dense[WHOLE]
  const %s : f32[2] = random
  const %b : f32[2] = random
  const %c : f32[4,1,1] = random
  graph (%x : f32[SHAPE]) -> (%y) {
    %a = reshape(%x, %split) : f32[INNER] loc("/split")
    %n = instance_normalization(%a, %s, %b) {epsilon = 0.001} : f32[INNER] loc("/norm")
    %g = reshape(%n, %whole) : f32[SHAPE] loc("/join")
    %h = mul(%g, %c) : f32[SHAPE] loc("/mul")
    %y = add(%h, %c) : f32[SHAPE] loc("/add")
  }
}"""


@pytest.mark.parametrize(
    ("shape", "inner", "whole"),
    [("2,4,5,6", "2,2,60", "2, 4, 5, 6"), ("N,4,5,6", "N,2,60", "0, 4, 5, 6")],
)
def test_groups(rewritten: Any, all_locations: Any, shape: str, inner: str, whole: str) -> None:
    text = GROUPS.replace("SHAPE", shape).replace("INNER", inner).replace("WHOLE", whole)
    done = rewritten(text, PASSES)
    assert done.ops == ["group_normalization"]
    assert (done.node("y").op.num_groups, round(done.node("y").op.epsilon, 6)) == (2, 0.001)
    assert all_locations(done.after) == {"/split", "/norm", "/join", "/mul", "/add"}


def test_groups_that_come_out_in_another_shape(rewritten: Any) -> None:
    text = GROUPS.replace("f32[SHAPE]) ->", "f32[2,4,5,6]) ->").replace("INNER", "2,2,60")
    text = text.replace("SHAPE", "2,4,6,5").replace("WHOLE", "2, 4, 6, 5")
    assert "group_normalization" not in rewritten(text, PASSES).ops


def test_a_bias_after_the_bias(rewritten: Any) -> None:
    text = """module @m {opsets = {"" = 17}} {
  const %s : f32[8] = random
  const %b : f32[8] = random
  const %c : f32[] = dense[2]
  graph (%x : f32[3,8]) -> (%y) {
    %n = layer_normalization(%x, %s, %b) : f32[3,8]
    %m = mul(%c, %n) : f32[3,8]
    %y = add(%m, %s) : f32[3,8]
  }
}"""
    done = rewritten(text, PASSES)
    assert done.ops == ["layer_normalization"]


def test_rms_takes_no_bias(rewritten: Any) -> None:
    done = rewritten(module(RMS["root"] + " z=add(y,beta)", outputs="%z"), PASSES)
    assert done.ops == ["rms_normalization", "add"]

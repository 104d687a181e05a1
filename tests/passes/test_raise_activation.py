"""raise-activation: every spelling of a function is one node with the same numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from qdqc.pipeline.manager import run
from qdqc.text.parser import parse_module

CONSTANTS = """const %half : f32[] = dense[0.5]
  const %one : f32[1] = dense[1]
  const %two : f32[] = dense[2]
  const %three : f32[] = dense[3]
  const %six : f32[1,1] = dense[6]
  const %sixth : f32[] = dense[0.16666667]
  const %root2 : f32[] = dense[1.4142135]
  const %root2_inv : f32[] = dense[0.70710677]
  const %cubic : f32[] = dense[0.044715]
  const %slope : f32[] = dense[0.7978846]
  const %slope_cubic : f32[] = dense[0.035677407]
  const %quick : f32[] = dense[1.702]
  const %neg : f32[] = dense[-1]
  const %row : f32[4] = dense[1, 2, 3, 4]"""

GELU = {
    "torch": "e=div(x,root2) f=erf(e) g=add(f,one) h=mul(x,g) y=mul(h,half)",
    "inverse": "e=mul(x,root2_inv) f=erf(e) g=add(one,f) h=mul(g,x) y=mul(half,h)",
    "half first": "m=mul(x,half) e=div(x,root2) f=erf(e) g=add(f,one) y=mul(m,g)",
    "half last": "e=div(x,root2) f=erf(e) g=add(f,one) h=mul(g,half) y=mul(x,h)",
    "half inside": "e=div(x,root2) f=erf(e) g=mul(f,half) h=add(g,half) y=mul(h,x)",
    "over two": "e=div(x,root2) f=erf(e) g=add(f,one) h=mul(x,g) y=div(h,two)",
    "spread": "e=div(x,root2) f=erf(e) g=mul(f,x) h=add(x,g) y=mul(h,half)",
}
TANH = {
    "pow": "p=pow(x,three) q=mul(p,cubic) r=add(x,q) s=mul(r,slope) t=tanh(s) u=add(t,one) "
    "h=mul(x,half) y=mul(h,u)",
    "products": "p=mul(x,x) q=mul(p,x) r=mul(cubic,q) s=add(r,x) v=mul(slope,s) t=tanh(v) "
    "u=add(one,t) h=mul(x,u) y=mul(half,h)",
    "fast": "p=mul(x,slope) q=mul(x,cubic) r=mul(q,x) s=add(one,r) v=mul(p,s) t=tanh(v) "
    "u=add(t,one) h=mul(x,half) y=mul(h,u)",
    "distributed": "p=pow(x,three) q=mul(p,slope_cubic) r=mul(x,slope) s=add(q,r) t=tanh(s) "
    "u=mul(t,half) v=add(u,half) y=mul(x,v)",
}
SPELLINGS = {
    **{f"gelu {k}": (v, "gelu", {}) for k, v in GELU.items()},
    **{f"tanh {k}": (v, "gelu", {"approximate": "tanh"}) for k, v in TANH.items()},
    "silu": ("s=sigmoid(x) y=mul(x,s)", "swish", {"alpha": 1.0}),
    "silu turned": ("s=sigmoid(x) y=mul(s,x)", "swish", {"alpha": 1.0}),
    "quick gelu": ("a=mul(x,quick) s=sigmoid(a) y=mul(x,s)", "swish", {"alpha": 1.702}),
    "silu by exp": ("n=neg(x) e=exp(n) d=add(e,one) y=div(x,d)", "swish", {"alpha": 1.0}),
    "sigmoid by exp": ("n=mul(x,neg) e=exp(n) d=add(one,e) y=div(one,d)", "sigmoid", {}),
    "sigmoid reciprocal": ("n=neg(x) e=exp(n) d=add(e,one) y=reciprocal(d)", "sigmoid", {}),
    "mish": ("s=softplus(x) t=tanh(s) y=mul(x,t)", "mish", {}),
    "mish by exp": ("e=exp(x) d=add(e,one) l=log(d) t=tanh(l) y=mul(t,x)", "mish", {}),
    "softplus": ("e=exp(x) d=add(e,one) y=log(d)", "softplus", {}),
    "softsign": ("a=abs(x) d=add(one,a) y=div(x,d)", "softsign", {}),
    "hard swish": ("a=add(x,three) c=clip6(a) m=mul(x,c) y=div(m,six)", "hard_swish", {}),
    "hard swish first": ("a=add(x,three) c=clip6(a) m=mul(c,sixth) y=mul(m,x)", "hard_swish", {}),
    "hard swish clamp": ("a=add6(x,three) m=mul(x,a) y=mul(m,sixth)", "hard_swish", {}),
    "hard swish of hard sigmoid": ("h=hard(x) y=mul(x,h)", "hard_swish", {}),
    "hard sigmoid": ("a=add(x,three) c=clip6(a) y=div(c,six)", "hard_sigmoid", {"beta": 0.5}),
    "hard sigmoid clamp": ("a=add6(three,x) y=mul(a,sixth)", "hard_sigmoid", {"beta": 0.5}),
    "hard sigmoid slope": (
        *("s=mul(x,two) a=add(s,three) c=clip6(a) y=mul(c,sixth)", "hard_sigmoid"),
        {"alpha": 1 / 3, "beta": 0.5},
    ),
}
LEFT_ALONE = {
    "another constant": "e=div(x,root2) f=erf(e) g=add(f,one) h=mul(x,g) y=mul(h,sixth)",
    "another root": "e=div(x,two) f=erf(e) g=add(f,one) h=mul(x,g) y=mul(h,half)",
    "erf of another value": "z=abs(x) e=div(z,root2) f=erf(e) g=add(f,one) h=mul(x,g) "
    "y=mul(h,half)",
    "two added": "e=div(x,root2) f=erf(e) g=add(f,two) h=mul(x,g) y=mul(h,half)",
    "no half": "e=div(x,root2) f=erf(e) g=add(f,one) y=mul(x,g)",
    "a row for a half": "e=div(x,root2) f=erf(e) g=add(f,one) h=mul(x,g) y=mul(h,row)",
    "gated": "z=abs(x) s=sigmoid(x) y=mul(z,s)",
    "shifted sigmoid": "a=add(x,one) s=sigmoid(a) y=mul(x,s)",
    "gated tanh": "z=abs(x) s=softplus(x) t=tanh(s) y=mul(z,t)",
    "tanh alone": "t=tanh(x) y=mul(x,t)",
    "swish with a shift of one": "a=add(x,one) c=clip6(a) m=mul(x,c) y=div(m,six)",
    "clip over five": "a=add(x,three) c=clip6(a) y=mul(c,half)",
    "scaled relu6": "c=clip6(x) y=div(c,six)",
    "exp of x": "e=exp(x) d=add(e,one) y=div(one,d)",
    "two over": "n=neg(x) e=exp(n) d=add(e,one) y=div(two,d)",
    "log of two more": "e=exp(x) d=add(e,two) y=log(d)",
    "softsign of another": "z=neg(x) a=abs(z) d=add(one,a) y=div(x,d)",
}
CALLS = {
    "clip6": ("clip", " {min = 0, max = 6}"),
    "add6": ("add", " {clamp = [0, 6]}"),
    "hard": ("hard_sigmoid", " {alpha = 0.16666667}"),
}


def module(steps: str, elem: str = "f32", shape: str = "3,4", outputs: str = "%y") -> str:
    lines: list[str] = []
    for step in steps.split():
        name, _, call = step.partition("=")
        op, _, operands = call.rstrip(")").partition("(")
        op, attributes = CALLS.get(op, (op, ""))
        values = ", ".join(f"%{v}" for v in operands.split(","))
        lines.append(f'    %{name} = {op}({values}){attributes} : {elem}[{shape}] loc("/{name}")')
    constants = CONSTANTS.replace("f32", elem)
    body = "\n".join(lines)
    return f"""module @m {{opsets = {{"" = 20}}}} {{
  {constants}
  graph (%x : {elem}[{shape}]) -> ({outputs}) {{
{body}
  }}
}}"""


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("shape", ["3,4", "N,4", "2,M,4"])
def test_one_node(rewritten: Any, all_locations: Any, spelling: str, shape: str) -> None:
    steps, op, fields = SPELLINGS[spelling]
    done = rewritten(module(steps, shape=shape), "raise-activation,eliminate-dead-code")
    assert done.ops == [op]
    found = done.node("y").op
    for name, wanted in fields.items():
        value = getattr(found, name)
        assert value == wanted or math.isclose(value, wanted, rel_tol=1e-6)
    assert all_locations(done.after) == all_locations(done.before)


@pytest.mark.parametrize("steps", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_only_looks_alike(rewritten: Any, steps: str) -> None:
    done = rewritten(module(steps), "raise-activation,eliminate-dead-code")
    kept = {"gelu", "swish", "hard_swish", "mish", "softsign", "hard_sigmoid", "sigmoid"}
    spelt = {step.partition("=")[2].partition("(")[0] for step in steps.split()}
    assert not kept & set(done.ops) - spelt


@pytest.mark.parametrize("read", ["e", "f", "g", "h"])
def test_an_inner_value_that_is_read_elsewhere(rewritten: Any, read: str) -> None:
    """As a graph output, or by another node."""
    done = rewritten(module(GELU["torch"], outputs=f"%y, %{read}"), "raise-activation")
    assert "gelu" not in done.ops
    done = rewritten(module(f"{GELU['torch']} z=abs({read})", outputs="%y, %z"), "raise-activation")
    assert "gelu" not in done.ops


def test_halves() -> None:
    """A constant in half precision has three digits."""
    text = module(GELU["torch"], elem="f16").replace("1.4142135", "1.4140625")
    after = run(parse_module(text, verify=True), "raise-activation")
    assert [n.op.name for n in after.graph.nodes()] == ["gelu"]
    wrong = run(parse_module(text.replace("1.4140625", "1.421875")), "raise-activation")
    assert "gelu" not in [n.op.name for n in wrong.graph.nodes()]


def test_integers_are_no_activation(rewritten: Any) -> None:
    text = """module @m {opsets = {"" = 20}} {
  const %c : i32[] = dense[2]
  graph (%x : i32[3]) -> (%y) {
    %a = abs(%x) : i32[3]
    %y = mul(%a, %c) : i32[3]
  }
}"""
    assert rewritten(text, "raise-activation").ops == ["abs", "mul"]


def test_x_is_what_another_chain_makes(rewritten: Any) -> None:
    """The operand is itself a product and a sum, read by the chain alone."""
    done = rewritten(module(f"z=mul(w,half) x=add(z,two) {GELU['torch']}").replace(
        "(%x : f32[3,4])", "(%w : f32[3,4])"
    ), "raise-activation")  # fmt: skip
    assert done.ops == ["mul", "add", "gelu"]


def test_a_precision_of_its_own_stays(rewritten: Any) -> None:
    text = module(GELU["torch"]).replace('loc("/f")', 'mode(F32) loc("/f")')
    assert "gelu" not in rewritten(text, "raise-activation").ops

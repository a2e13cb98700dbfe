"""Looks and clicks of the page: one style sheet for light and dark, wide and narrow, and two short scripts."""

from collections.abc import Mapping, Sequence

from pellucid.render.marks import DARK, DIM, INK, LEVELS, LIGHT, NIGHT, PAPER, colour_of

TOGGLE = """
element.addEventListener('click', (e) => {
  const word = e.target.closest('button[data-at]');
  if (!word) return;
  word.setAttribute('aria-pressed', String(word.getAttribute('aria-pressed') !== 'true'));
  const pressed = element.querySelectorAll('button[data-at][aria-pressed="true"]');
  trigger('click', {places: Array.from(pressed, (w) => Number(w.dataset.at))});
});
"""
"""A click on a word presses or releases it; all that are pressed are told."""

CHOOSE = """
element.addEventListener('click', (e) => {
  const word = e.target.closest('button[data-at]');
  if (word) trigger('click', {places: [Number(word.dataset.at)]});
});
"""
"""A click on a word tells its place."""


def _levels(under: str, ramps: Mapping[str, Sequence[str]]) -> str:
    steps = ((r, k, colour_of(k / LEVELS, stops)) for r, stops in ramps.items() for k in range(1, LEVELS + 1))
    rules = "".join(f"{under} .{r}{k}{{background-color:{colour}}}" for r, k, colour in steps)
    signed = ",".join([*reversed(ramps["n"]), *ramps["p"][1:]])
    fills = "".join(f"{under} .bar .{r}{{background:{stops[-1]}}}" for r, stops in ramps.items())
    return (
        f"{rules}{fills}{under} .signed{{background:linear-gradient(to right,{signed})}}"
        f"{under} .single{{background:linear-gradient(to right,{','.join(ramps['u'])})}}"
    )


_PAGE = """
.gradio-container{max-width:min(64rem,100vw)!important;min-width:0!important;margin:0 auto!important}
.gradio-container>.main{max-width:100%!important;min-width:0!important;box-sizing:border-box}
@media(max-width:640px){.gradio-container>.main{padding:1rem!important}}
.gradio-container main{padding-bottom:1rem!important}
.html-container:has(.pell){padding:0!important}
.pell{color:var(--ink);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
.pell h1{font-size:1.5rem;font-weight:700;margin:0;color:inherit}
.pell h3{font-size:1rem;font-weight:700;margin:0 0 .3rem;color:inherit}
.pell h4{font-size:.95rem;font-weight:700;margin:1.1rem 0 0;color:inherit}
.pell p{margin:.35rem 0}.pell .lead{font-size:1.05rem}
.pell section{background:var(--paper);border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem;margin:.6rem 0}
.pell .two{display:grid;grid-template-columns:1fr 1fr;gap:.8rem}.pell .two section{margin:0;min-width:0}
.pell .note{border-left:4px solid var(--accent);padding:.2rem .8rem;margin:0}
.pell .refusal{background:var(--paper);border-style:solid;border-color:var(--warn);border-width:1px 1px 1px 6px;
  border-radius:8px;padding:.8rem 1rem}
.pell .strip,.pell .map{position:relative;margin:.5rem 0}
.pell .strip p{margin:0;white-space:pre-wrap;line-height:2;font-size:1.05rem}
.pell .strip small,.pell .map small{display:block;min-height:1.7em;padding-top:.2em;color:var(--dim);font-size:.87rem}
.pell .strip i{color:var(--dim)}
.pell .t{border-radius:.2em;padding:.14em 0;color:inherit;font:inherit;border:0;background-color:transparent}
.pell .s{font-size:.8em}.pell .d{color:var(--dim)}
.pell button.t{cursor:pointer;padding:.14em .12em;margin:0 -.02em;text-decoration:underline dotted var(--dim) 1px;
  text-underline-offset:.3em;min-height:1.6em}
.pell button.t[aria-pressed=true]{outline:2px solid var(--accent)}
.erase .pell button.t[aria-pressed=true]{outline:0;color:var(--dim);background-color:transparent;
  text-decoration:line-through 2px}
.pell .t:hover,.pell .t:focus-visible{outline:2px solid var(--ink)}
.pell .t:hover::after,.pell .t:focus::after,.pell .map span:hover::after,.pell .map span:focus::after{
  content:attr(data-n);position:absolute;left:0;right:0;bottom:0;z-index:2;color:var(--ink);min-height:1.7em;
  background:var(--paper);font:600 .95rem/1.5 system-ui,sans-serif;white-space:pre-wrap;text-align:left;opacity:1;
  pointer-events:none;overflow:hidden;text-overflow:ellipsis;max-height:1.6em}
.pell .t:hover::after,.pell .map span:hover::after{z-index:3}
.pell .key{font-size:.87rem;font-variant-numeric:tabular-nums;color:var(--dim)}
.pell .key span{display:inline-block;width:min(10em,30vw);margin:0 .5em;text-align:center;
  border:1px solid var(--line);color:var(--ink);min-height:1.5em;vertical-align:middle}
.pell .sum{font-size:.9rem;font-variant-numeric:tabular-nums}
.pell table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.93rem;margin:.5rem 0;color:inherit}
.pell td,.pell th{padding:.12rem .8rem .12rem 0;text-align:right;border:0;background:none;font-weight:400;color:inherit}
.pell :is(.bars,.logits) :is(td,th):first-child,.pell .nums td:nth-child(2){text-align:left}
.pell .nums :is(td,th):first-child{text-align:left}
.pell tr>th[scope=col]{color:var(--dim)}.pell th[scope=row]{font-weight:600}
.pell .logits :is(td,th){white-space:nowrap}.pell .logits th[scope=row]{white-space:normal;min-width:5.5em}
.pell caption{text-align:left;color:var(--dim);font-size:.87rem}
.pell td small{color:var(--dim);white-space:nowrap}
.pell .bars,.pell .logits{width:100%;max-width:40rem}
.pell .bars td:nth-child(2),.pell .logits td:nth-last-child(2){width:40%}
.pell .bar{display:block;position:relative;height:.8em;min-width:4.5em}
.pell .bar span{position:absolute;top:0;bottom:0;border-radius:2px}
.pell .zero::after{content:"";position:absolute;left:50%;top:-.2em;bottom:-.2em;border-left:1px solid var(--dim)}
.pell details{font-size:.93rem}.pell summary{cursor:pointer;color:var(--dim)}
.pell .map{margin-top:1rem;font-size:.8rem}
.pell .map>div{display:grid;gap:1px;overflow-x:auto;justify-content:start;padding:2px}
.pell .map b{font-weight:400;text-align:right;padding-right:.4em;white-space:nowrap;overflow:hidden;
  text-overflow:ellipsis;line-height:1.5}
.pell .map span{min-height:1.5em;border-radius:2px}.pell :where(.map span){background-color:var(--empty)}
.pell .map>div>span:not([data-n]){writing-mode:vertical-rl;transform:rotate(180deg);background:none;
  white-space:nowrap;max-height:6em;overflow:hidden;line-height:1.2;justify-self:center}
.pell .map span[data-n]:hover,.pell .map span[data-n]:focus{outline:2px solid var(--ink)}
footer .divider:last-child{display:none!important}
@media(max-width:640px){.pell .two{grid-template-columns:1fr}.pell section{padding:.7rem .75rem}
  .pell td,.pell th{padding-right:.5rem}.pell td small{display:block}
  .pell .logits td:nth-last-child(2){display:none}.pell .logits th{white-space:normal}.pell .bar{min-width:3.2em}}
"""

_LIGHT = f"--ink:{INK};--dim:{DIM};--paper:{PAPER};--line:#d0d0d0;--empty:#f3f3f3;--accent:#0072b2;--warn:#b2182b"
_DARK = f"--ink:#eeeeee;--dim:#b0b0b0;--paper:{NIGHT};--line:#3a3d44;--empty:#202329;--accent:#56b4e9;--warn:#f4a582"
CSS = f".pell{{{_LIGHT}}}.dark .pell{{{_DARK}}}{_PAGE}{_levels('.pell', LIGHT)}{_levels('.dark .pell', DARK)}"

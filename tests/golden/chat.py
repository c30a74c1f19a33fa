"""Chat templates in the styles of published models, rendered by transformers, into `chat/golden.json`.

The templates are our own; what they exercise is what published ones use: folding the system's words into the first
message, Python methods, loop variables, filters, slices, namespaces, refusals, stripped block lines.

    python tests/golden/chat.py        (transformers 5.23)
"""

import json
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

TEMPLATES = {
    "brackets": """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set rules = messages[0]['content'] %}{% else %}{% set rest = messages %}{% set rules = false %}{% endif %}{% for message in rest %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must take turns') }}{% endif %}{% if loop.index0 == 0 and rules != false %}{% set content = '<<R>>\\n' + rules + '\\n<</R>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[U] ' + content.strip() + ' [/U]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "lines": """{%- set found = namespace(system=false) -%}
{%- for message in messages if message.role == 'system' -%}
    {%- set found.system = true -%}
{%- endfor -%}
{%- if not found.system -%}
{{ '<|start|>system\\nBe brief.<|stop|>\\n' }}
{%- endif -%}
{% for message in messages %}
    {{- '<|start|>' ~ message.role ~ '\\n' ~ (message.content | trim) ~ '<|stop|>\\n' -}}
{% endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant\\n' }}
{%- endif %}
""",
    "headers": """{{- bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set words = messages[0]['content'] | upper %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set words = '' %}
{%- endif %}
{% if tools is defined and tools %}
tools
{% endif %}
<h>{{ words.lower().replace('be', 'stay') }}</h>
{% for message in messages %}
    {% if message['content'].startswith('a') or 'z' in message.content %}
{{ loop.index }}/{{ loop.length }} {{ message.content.split(' ')[-1] | tojson }}
    {% else %}
{{ message.role.capitalize() }}: {{ message['content'] }}{{ '' if loop.last else eos_token }}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}<a>{% endif %}""",
}

CONVERSATIONS = [
    [("user", " Which keywords? \n")],
    [("system", "Be kind."), ("user", "hello"), ("assistant", " Hi! "), ("user", "a \"quoted\" cat")],
    [("user", "two"), ("user", "questions")],
]


def main():
    cases = []
    for name, template in TEMPLATES.items():
        for turns in CONVERSATIONS:
            messages = [{"role": role, "content": content} for role, content in turns]
            for add in (True, False):
                try:
                    (text,), _ = render_jinja_template([messages], chat_template=template, bos_token="<s>",
                                                       eos_token="</s>", add_generation_prompt=add)
                except Exception as error:
                    text = None
                    assert "take turns" in str(error), error
                cases.append({"template": name, "messages": messages, "add_generation_prompt": add, "text": text})
    folder = Path(__file__).parent / "chat"
    folder.mkdir(exist_ok=True)
    content = {"templates": TEMPLATES, "cases": cases}
    (folder / "golden.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"{len(cases)} conversations")


if __name__ == "__main__":
    main()

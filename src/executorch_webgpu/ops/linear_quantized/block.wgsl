{# A block is `step` weights of a column: one load of `words` words, or several. #}
{% set loads = step // (per_word * words) %}

{# Loads the block of a column; `start` is where its row of weights begins. #}
{% macro load_block(name, start) %}
{% for i in range(loads) %}
let {{ name }}_{{ i }} = load_weights({{ start }}, block * {{ loads }}u + {{ i }}u);
{% endfor %}
{% endmacro %}

{# Weights 4 q to 4 q + 3 of a loaded block. #}
{% macro block_codes(name, q) -%}
{%- set word = 4 * q // per_word -%}
{%- set shift = 4 * q % per_word * 32 // per_word -%}
four_codes({{ name }}_{{ word // words }}
{{- "[%d]" % (word % words) if words > 1 }}{{ " >> %du" % shift if shift }})
{%- endmacro %}

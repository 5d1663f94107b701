{# Macros: four consecutive elements of a tensor, by dtype. Elements narrower than a word are packed into words. #}
{% macro quad_type(dtype) -%}
{{ {"float32": "vec4<f32>", "float16": "vec2<u32>", "int32": "vec4<i32>", "bool": "vec4<u32>", "uint8": "u32", "int8": "u32"}[dtype] }}
{%- endmacro %}

{% macro word_type(dtype) -%}
{{ {"float32": "f32", "int32": "i32"}.get(dtype, "u32") }}
{%- endmacro %}

{# The four elements of quad q, which is an expression of quad_type(dtype) without side effects. #}
{% macro unpack(dtype, q) -%}
{% if dtype == "float16" %}vec4<f32>(unpack2x16float({{ q }}.x), unpack2x16float({{ q }}.y))
{%- elif dtype == "uint8" %}unpack4xU8({{ q }})
{%- elif dtype == "int8" %}unpack4xI8({{ q }})
{%- else %}{{ q }}
{%- endif %}
{%- endmacro %}

{# Element i of an array of words. #}
{% macro element(dtype, array, i) -%}
{% if dtype == "float16" %}unpack2x16float({{ array }}[{{ i }} / 2u])[{{ i }} % 2u]
{%- elif dtype == "uint8" %}unpack4xU8({{ array }}[{{ i }} / 4u])[{{ i }} % 4u]
{%- elif dtype == "int8" %}unpack4xI8({{ array }}[{{ i }} / 4u])[{{ i }} % 4u]
{%- else %}{{ array }}[{{ i }}]
{%- endif %}
{%- endmacro %}

{# The quad that holds four numbers or bools v; integers wrap, and f32 to integer conversion cuts off and saturates. #}
{% macro pack(dtype, v) -%}
{% if dtype == "float16" %}pack_half(vec4<f32>({{ v }}))
{%- elif dtype == "uint8" %}pack4xU8(vec4<u32>(vec4<i32>({{ v }})))
{%- elif dtype == "int8" %}pack4xI8(vec4<i32>({{ v }}))
{%- else %}{{ quad_type(dtype) }}({{ v }})
{%- endif %}
{%- endmacro %}

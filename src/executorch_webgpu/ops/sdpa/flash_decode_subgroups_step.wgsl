{% macro key_words(u) %}{% for e in range(vectors) %}{{ "," if e }}k{{ u }}_{{ e // quads }}{{ "[%d]" % (e % quads) if quads > 1 }}{% endfor %}{% endmacro %}
    // Parts of the dot products, one after the other in the order of the sums.
    {% for u in range(unroll) %}
    {% if cache == "int8" %}
    {% for r in range(rows) %}
    var s{{ r * unroll + u }} = {{ query_bytes.dot(r, key_words(u).split(",")) }};
    {% endfor %}
    {% else %}
    {% for e in range(vectors) %}
    let key{{ u }}_{{ e }} = cache_quad{{ e % quads }}(k{{ u }}_{{ e // quads }});
    {% endfor %}
    {% for r in range(rows) %}
    var s{{ r * unroll + u }} = {% for e in range(vectors) %}{{ " + " if e }}dot(q{{ r }}_{{ e }}, key{{ u }}_{{ e }}){% endfor %};
    {% endfor %}
    {% endif %}
    {% endfor %}
    {% if cache == "int8" %}
    {% for j in range(my_keys) %}
    let score_scale{{ j }} = k_scale{{ j }};
    let weight_scale{{ j }} = v_scale{{ j }};
    {% endfor %}
    {% endif %}
    {{ places("tile + %du" % (subgroups * keys)) | indent(4) }}
    {{ fetch("k", "tile + %du" % (subgroups * keys)) | indent(4) }}

    // Each exchange adds up pairs of lanes and halves what a lane has to keep.
    {% set left = namespace(n=sums) %}
    {% for i in range(6) if 2 ** i < lanes %}
    {% set offset = lanes // 2 ** (i + 1) %}
    {% if left.n > 1 %}
    {% set left.n = left.n // 2 %}
    {% for j in range(left.n) %}
    s{{ j }} += subgroupShuffleXor(s{{ j + left.n }}, {{ offset }}u);
    {% endfor %}
    {% else %}
    s0 += subgroupShuffleXor(s0, {{ offset }}u);
    {% endif %}
    {% endfor %}

    {% for a in range(my_rows) %}
    {% for j in range(my_keys) %}
    {% set s = "s%d" % (a * my_keys + j) %}
    let seen{{ a }}_{{ j }} = ((tile + first_key) ^ {{ j * groups }}u) < visible{{ a }};
    {{ s }} = select(LOWEST, {{ s }}{{ " * (score_scale%d * step%d)" % (j, a) if cache == "int8" }}, seen{{ a }}_{{ j }});
    {% endfor %}
    var top{{ a }} = s{{ a * my_keys }};
    {% for j in range(1, my_keys) %}
    top{{ a }} = max(top{{ a }}, s{{ a * my_keys + j }});
    {% endfor %}
    {{ over_row("top%d" % a, "max(#, @)") | indent(4) }}
    let before{{ a }} = largest{{ a }};
    largest{{ a }} = select(before{{ a }}, top{{ a }}, top{{ a }} > before{{ a }} + RESCALE);
    let factor{{ a }} = exp(max(before{{ a }} - largest{{ a }}, -100.0));
    total{{ a }} *= factor{{ a }};
    {% for j in range(my_keys) %}
    {% set p = "p%d" % (a * my_keys + j) %}
    var {{ p }} = select(0.0, exp(s{{ a * my_keys + j }} - largest{{ a }}), seen{{ a }}_{{ j }});
    total{{ a }} += {{ p }};
    {% if cache == "int8" %}
    {{ p }} *= weight_scale{{ j }};
    {% endif %}
    {% endfor %}
    {% endfor %}
    {% for r in range(rows) %}
    let factor_of{{ r }} = {{ of_row("factor", r) }};
    if (factor_of{{ r }} != 1.0) {
      {% for e in range(vectors) %}
      o{{ r }}_{{ e }} *= factor_of{{ r }};
      {% endfor %}
    }
    {% endfor %}

    {% for u in range(unroll) %}
    {% for e in range(vectors) %}
    let value{{ u }}_{{ e }} = cache_quad{{ e % quads }}(v{{ u }}_{{ e // quads }});
    {% endfor %}
    {% for r in range(rows) %}
    {% set sum = r * unroll + u %}
    let weight{{ u }}_{{ r }} = subgroupShuffleXor(p{{ sum % mine }}, {{ sum // mine * spread }}u);
    {% for e in range(vectors) %}
    o{{ r }}_{{ e }} += weight{{ u }}_{{ r }} * value{{ u }}_{{ e }};
    {% endfor %}
    {% endfor %}
    {% endfor %}
    {{ fetch("v", "tile + %du" % (subgroups * keys)) | indent(4) }}

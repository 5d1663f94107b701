# usage: scratch_trace.sh PTE PROMPT
cd /work/wt/front; source /work/main/.venv/bin/activate; export PYTHONPATH=/tmp/front_site:$PWD/src:$PWD:$PWD/examples
export NULL_STEP_MS=2 WGPU_BACKEND_TYPE=Null PATH_TRACE=/tmp/trace.txt; rm -f /tmp/trace.txt
python -m executorch_webgpu serve $1 --engine dawn --port 8766 --no-page --max-sequences 1 --log-format json 2>/tmp/s.log & P=$!
for i in $(seq 60); do grep -q Listening /tmp/s.log && break; sleep 0.5; done; sleep 4
python scratch_ask.py http://127.0.0.1:8766 60 $2 12
kill $P; wait $P
python /tmp/analyze.py /tmp/trace.txt

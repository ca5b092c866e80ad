"""Stage 3: Orbax adapter + base safetensors -> merged safetensors, PEFT adapter, certificate."""

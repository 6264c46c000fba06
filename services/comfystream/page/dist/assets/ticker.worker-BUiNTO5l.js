let o;onmessage=s=>{clearTimeout(o);const e=1e3/s.data;let t=performance.now()+e;const a=()=>{postMessage(0);const n=performance.now();t=Math.max(t+e,n),o=setTimeout(a,t-n)};o=setTimeout(a,e)};
